"""Event streams whose client goes: nothing of them is left."""

import asyncio
import gc
import threading

import pytest
from support.limits import PATIENCE

from cellsparse_gateway.events import MAX_STREAMS, EventStreams


class Call:
    """A call that yields nothing until it is cancelled."""

    def __init__(self):
        self.cancelled = threading.Event()

    def __iter__(self):
        self.cancelled.wait(PATIENCE)
        return iter(())

    def cancel(self):
        self.cancelled.set()


def render(message):
    return message


async def open_and_leave(streams, calls):
    def begin(timeout):
        calls.append(Call())
        return calls[-1]

    body = streams.response(begin, render).body_iterator
    assert await anext(body) == b"retry: 1000\n\n"
    waiting = asyncio.ensure_future(anext(body))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_stream_whose_client_goes_leaves_nothing():
    streams, calls, complaints = EventStreams(), [], []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about["message"]))
        for _ in range(3):
            await open_and_leave(streams, calls)
        gc.collect()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    gc.collect()
    assert complaints == []
    assert all(call.cancelled.is_set() for call in calls)
    assert streams._open == set()


def test_an_answer_that_is_never_begun_holds_no_place():
    streams = EventStreams()

    async def main():
        for _ in range(2 * MAX_STREAMS):
            streams.response(lambda timeout: Call(), render)

    asyncio.run(main())


def test_closing_ends_a_stream_that_waits():
    streams, calls = EventStreams(), []

    async def main():
        body = streams.response(lambda timeout: calls.append(Call()) or calls[-1], render).body_iterator
        await anext(body)
        waiting = asyncio.ensure_future(anext(body))
        await asyncio.sleep(0.05)
        streams.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(main())
    assert calls[0].cancelled.is_set()
