"""The loop in which all attempts are watched: a fixed number of threads, however many trainings there are."""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

_THREADS = 32
"""For calls that wait: to launchers, to the database, and to trainers that are asked to start or to end."""
_END_SECONDS = 10.0
Result = TypeVar("Result")


class DaemonThreads(Executor):
    """A pool of threads that do not keep the process alive: what they wait for is not worth a slow shutdown.

    Args:
        most: Most threads; they are started when they are needed.
        name: Prefix of their names.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._started = self._idle = 0
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> "Future[Any]":
        """Call a function in one of the threads (see `Executor`)."""
        future: Future[Any] = Future()
        self._calls.put((future, lambda: call(*given, **named)))
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._started < self._most:
                self._started += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - raised again where the result is wanted
                    future.set_exception(error)
            del future, call
            with self._lock:
                self._idle += self._calls.empty()


class WatcherLoop:
    """An asyncio loop in a thread of its own. Safe to use from many threads; `start` comes first."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = DaemonThreads(_THREADS, "watcher-call")
        self._thread = threading.Thread(target=self._run, name="watchers", daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start to drive a coroutine."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call(self, function: Callable[..., Result], *given: Any) -> Result:
        """Call a function that may wait, in a thread; for what runs in the loop."""
        assert self._loop is not None
        context = contextvars.copy_context()  # what logs and traces say
        return await self._loop.run_in_executor(self._threads, lambda: context.run(function, *given))

    def soon(self, call: Callable[[], object]) -> None:
        """Call a function in the loop; does nothing once the loop has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        """End the loop with all that still runs in it. Idempotent."""
        if self._loop is None:
            return
        self.soon(self._loop.stop)
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()
