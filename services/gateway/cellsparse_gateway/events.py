"""Server-Sent Events from streams of the orchestrator."""

import asyncio
import contextvars
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from fastapi.responses import StreamingResponse

from cellsparse_common.errors import CellsparseError
from cellsparse_gateway.calls import WORK_SECONDS
from cellsparse_gateway.problems import Problem

COMMENT_SECONDS = 15.0
AHEAD = 256
"""Events that may wait for a slow client."""
MAX_STREAMS = 96
"""Open streams of this process: each occupies a thread of the orchestrator, which has 128."""
_END = object()
_BROKEN = object()


class EventStreams:
    """All open event streams of the process.

    They use no thread of the pool that answers other requests, and they all end as soon as `close` is called.

    Attributes:
        closing: Set by `close`, for other requests that wait long.
    """

    def __init__(self) -> None:
        self._open: set[asyncio.Queue[Any]] = set()
        self.closing = threading.Event()

    def close(self) -> None:
        """End all streams. Clients connect again with the sequence number of the last event they got."""
        self.closing.set()
        for queue in self._open:
            queue.put_nowait(_BROKEN)  # for one that waits for something else

    def response(self, begin: Callable[..., Any], render: Callable[[Any], bytes]) -> StreamingResponse:
        """Return an answer that sends the messages of a call as events.

        Args:
            begin: Makes the call, with `timeout=`.
            render: Makes an event of a message.

        Raises:
            Problem: Too many streams are open.
        """
        if len(self._open) >= MAX_STREAMS or self.closing.is_set():
            raise Problem(503, f"{MAX_STREAMS} event streams are open, the most allowed; close some pages.")
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(begin, render), media_type="text/event-stream", headers=headers)

    async def _events(self, begin: Callable[..., Any], render: Callable[[Any], bytes]) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        pump = _Pump(begin, queue, asyncio.get_running_loop())
        self._open.add(queue)  # not before: an answer whose client has gone is never begun
        try:
            yield b"retry: 1000\n\n"
            pump.start()
            while not self.closing.is_set():
                try:
                    message = await asyncio.wait_for(queue.get(), COMMENT_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                pump.taken()
                if message is _END:
                    yield b"event: end\ndata: {}\n\n"
                    return
                if message is _BROKEN:
                    return  # the client connects again
                yield render(message)
        finally:
            pump.stop()
            self._open.discard(queue)


def event(sequence: int, name: str, content: Any) -> bytes:
    """Return one event."""
    return f"id: {sequence}\nevent: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


class _Pump(threading.Thread):
    """Reads a call's messages and hands them to the event loop."""

    def __init__(self, begin: Callable[..., Any], queue: "asyncio.Queue[Any]", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="events", daemon=True)
        self._begin = begin
        self._queue = queue
        self._loop = loop
        self._room = threading.Semaphore(AHEAD)
        self._stopped = threading.Event()
        self._call: Any = None
        # The call is made for whoever opened the stream.
        self._context = contextvars.copy_context()

    def taken(self) -> None:
        """Say that a message was sent."""
        self._room.release()

    def stop(self) -> None:
        """End the call."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()

    def run(self) -> None:
        self._context.run(self._read)

    def _read(self) -> None:
        last = _END
        try:
            self._call = self._begin(timeout=WORK_SECONDS)
            if self._stopped.is_set():
                self._call.cancel()
            for message in self._call:
                while not self._room.acquire(timeout=1.0):
                    if self._stopped.is_set():
                        return
                self._put(message)
        except (grpc.RpcError, CellsparseError):
            last = _BROKEN
        if not self._stopped.is_set():
            self._put(last)

    def _put(self, message: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, message)
