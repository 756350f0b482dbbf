"""Streams of answers that mostly wait: each holds a thread only while it works, so that thousands share a few threads.

Their methods yield a `Pause` wherever they would wait, and the stream stands aside until the pause is over. Otherwise
they are like any other method: they keep their context variables, their exceptions become a status, and they see
`GeneratorExit` when the caller has gone.

A thread that sends an answer waits until gRPC takes it, which may be when the caller reads. A thread that waits long is
replaced, so that callers who do not read keep nobody from their answers.
"""

import contextvars
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

import grpc

_LOG = logging.getLogger(__name__)
THREADS = 4
"""Threads that work for all streams, beside those that wait for callers to read."""
MOST_UNREAD = 64
"""Threads that may wait for callers to read. Of more streams, the one that has waited longest is ended."""
UNREAD_SECONDS = 0.25
"""A thread that sends an answer for so long is taken to wait for its caller to read."""
PATIENCE_SECONDS = 10.0
"""No stream is ended because of a caller that has not read for a shorter time."""
_TICK_SECONDS = 0.1
_TURN = 64
"""Answers that a stream may send before it is the turn of others."""


class Waiter(Protocol):
    """What is woken when a pause is over; `threading.Event` is one."""

    def set(self) -> None:
        """Wake it."""


class Pause(ABC):
    """What a stream waits for.

    Attributes:
        seconds: The longest time that it may take.
    """

    seconds: float = 0.0

    @abstractmethod
    def begin(self, waiter: Waiter) -> bool:
        """Wake a waiter, from any thread, when the pause is over; return False if it is over already."""

    @abstractmethod
    def end(self, waiter: Waiter) -> None:
        """Forget a waiter, whether it was woken or not."""


class NextTurn(Pause):
    """A pause that is over at once: it lets others have their turn."""

    def begin(self, waiter: Waiter) -> bool:
        """Return False."""
        return False

    def end(self, waiter: Waiter) -> None:
        """Do nothing."""


def wait_out(pause: Pause) -> None:
    """Wait in this thread until a pause is over."""
    over = threading.Event()
    if pause.begin(over):
        over.wait(pause.seconds)
    pause.end(over)


class _Stream:
    """A stream, and where it stands.

    Attributes:
        variables: Context variables that all its steps see, whichever thread they run in.
        pause: What it waits for, or waited for last.
        wake_at: When the pause ends at the latest, as `time.monotonic` has it.
        parked: It stands aside. Then no thread works for it, and it is not in the queue either.
        woken: The pause is over.
        gone: The call has ended.
    """

    def __init__(
        self,
        answers: Generator[Any, None, None],
        context: grpc.ServicerContext,
        send: Callable[[Any], None],
        wake: Callable[["_Stream"], None],
    ) -> None:
        self.answers = answers
        self.context = context
        self.send = send
        self.variables = contextvars.copy_context()
        self.pause: Pause = NextTurn()
        self.wake_at = 0.0
        self.parked = self.woken = self.gone = False
        self._wake = wake

    def set(self) -> None:
        """Say that the pause is over (see `Waiter`)."""
        self.woken = True
        self._wake(self)

    def leave(self) -> None:
        """Say that the call has ended."""
        self.gone = True
        self._wake(self)


class WaitingStreams:
    """Works for streams that mostly wait. Its threads start when they are needed, and end with the process.

    Args:
        threads: Threads that work, beside those that wait for callers to read.
        most_unread: Threads that may do so.
        patience: No stream is ended because of a caller that has not read for a shorter time, seconds.
    """

    def __init__(
        self, threads: int = THREADS, most_unread: int = MOST_UNREAD, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._threads = threads
        self._most_unread = most_unread
        self._patience = patience
        self._lock = threading.Lock()
        self._work, self._clock = threading.Condition(self._lock), threading.Condition(self._lock)
        self._ready: deque[_Stream] = deque()
        self._parked: set[_Stream] = set()
        self._sending: dict[_Stream, float] = {}
        """Since when each stream sends an answer, as `time.monotonic` has it."""
        self._alive = 0
        """Threads, those that wait for callers to read among them."""
        self._ticks = False

    def begin(
        self, answers: Generator[Any, None, None], context: grpc.ServicerContext, send: Callable[[Any], None]
    ) -> None:
        """Take the first step of a stream in this thread, and all others in threads that are shared.

        Args:
            answers: Yields answers and pauses. The first step should end with a pause.
            context: The call.
            send: Sends an answer, or the call's status for None; what gRPC hands to methods that do not block.
        """
        stream = _Stream(answers, context, send, self._wake)
        if not context.add_callback(stream.leave):
            stream.gone = True
        self._advance(stream)

    def _wake(self, stream: _Stream) -> None:
        with self._lock:
            self._unpark(stream)

    def _unpark(self, stream: _Stream) -> None:
        if not stream.parked:
            return
        stream.parked = False
        self._parked.discard(stream)
        self._ready.append(stream)
        if self._alive < self._threads:
            self._start_thread()
        self._work.notify()

    def _start_thread(self) -> None:
        self._alive += 1
        threading.Thread(target=self._run, name="streams", daemon=True).start()

    def _run(self) -> None:
        while (stream := self._next()) is not None:
            try:
                self._advance(stream)
            except Exception as error:  # noqa: BLE001 - this thread works for all other streams, too
                _LOG.error("a stream cannot go on", exc_info=error)
                self._close(stream)

    def _next(self) -> _Stream | None:
        """Return the next stream to work for; None: this thread is one too many."""
        with self._lock:
            while not self._ready:
                if self._alive - len(self._unread()) > self._threads:
                    self._alive -= 1
                    return None
                self._work.wait()
            return self._ready.popleft()

    def _advance(self, stream: _Stream) -> None:
        """Work for a stream up to its next pause."""
        stream.pause.end(stream)
        stream.woken = False
        pause: Pause = NextTurn()
        for _ in range(_TURN):
            if stream.gone:
                self._close(stream)
                return
            try:
                answer = stream.variables.run(next, stream.answers)
            except StopIteration:
                stream.send(None)
                return
            except Exception as error:  # noqa: BLE001 - gRPC would do so; here it has returned already
                if stream.context.code() is None:
                    _LOG.error("a stream failed", exc_info=error)
                    stream.context.set_code(grpc.StatusCode.UNKNOWN)
                stream.send(None)
                return
            if isinstance(answer, Pause):
                pause = answer
                break
            self._send(stream, answer)
        self._park(stream, pause)

    def _send(self, stream: _Stream, answer: object) -> None:
        with self._lock:
            self._sending[stream] = time.monotonic()
        try:
            stream.send(answer)
        finally:
            with self._lock:
                del self._sending[stream]

    def _close(self, stream: _Stream) -> None:
        try:
            stream.variables.run(stream.answers.close)
        except Exception as error:  # noqa: BLE001 - the caller has gone: nobody else can be told
            _LOG.error("a stream that its caller has left could not be closed", exc_info=error)

    def _park(self, stream: _Stream, pause: Pause) -> None:
        """Let a stream stand aside until its pause is over."""
        stream.pause = pause
        over = not pause.begin(stream)
        with self._lock:
            stream.parked, stream.wake_at = True, time.monotonic() + pause.seconds
            self._parked.add(stream)
            if over or stream.woken or stream.gone:
                self._unpark(stream)
            if not self._ticks:
                self._ticks = True
                threading.Thread(target=self._tick, name="streams-clock", daemon=True).start()
            self._clock.notify()

    def _tick(self) -> None:
        """End pauses whose time is over, and replace threads that wait for callers to read."""
        while True:
            with self._lock:
                while not (self._parked or self._ready or self._sending):
                    self._clock.wait()
                now = time.monotonic()
                for stream in [each for each in self._parked if each.wake_at <= now]:
                    self._unpark(stream)
                unread = self._unread()
                while self._ready and self._alive - min(len(unread), self._most_unread) < self._threads:
                    self._start_thread()
            if len(unread) > self._most_unread:
                self._end_oldest(unread, now)
            time.sleep(_TICK_SECONDS)

    def _unread(self) -> dict[_Stream, float]:
        """Return the streams whose callers do not read, and since when; the oldest first."""
        late = time.monotonic() - UNREAD_SECONDS
        return {stream: since for stream, since in self._sending.items() if since < late}

    def _end_oldest(self, unread: dict[_Stream, float], now: float) -> None:
        stream, since = next(iter(unread.items()))
        if now - since > self._patience:
            _LOG.warning("a stream is ended: %s has read nothing of it for %.0f s", stream.context.peer(), now - since)
            stream.context.cancel()
