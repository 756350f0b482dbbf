"""All attempts are watched in a fixed number of threads."""

import asyncio
import threading

import pytest
from support.limits import PATIENCE

from cellsparse_common.logs import log_context, traceparent
from cellsparse_orchestrator.runs import watcher_loop
from cellsparse_orchestrator.runs.watcher_loop import DaemonThreads, WatcherLoop

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def loop():
    made = WatcherLoop()
    made.start()
    yield made
    made.stop()


def test_many_wait_in_the_loop_and_few_threads_call(loop):
    ended, most = threading.Semaphore(0), [0]
    before = threading.active_count()

    async def watch():
        await asyncio.sleep(0.01)
        await loop.call(lambda: most.append(threading.active_count()))
        ended.release()

    for _ in range(500):
        loop.begin(watch())
    assert all(ended.acquire(timeout=PATIENCE) for _ in range(500))
    assert max(most) - before <= watcher_loop._THREADS


def test_calls_log_and_trace_as_those_who_make_them(loop):
    found, over = [], threading.Event()

    async def watch():
        with log_context(traceparent=PARENT):
            found.append(await loop.call(traceparent))
        over.set()

    loop.begin(watch())
    assert over.wait(PATIENCE)
    assert found == [PARENT]


def test_what_still_runs_ends_with_the_loop(loop):
    began, ended = threading.Event(), threading.Event()

    async def watch():
        began.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.set()

    loop.begin(watch())
    assert began.wait(PATIENCE)
    loop.stop()
    assert ended.is_set()
    loop.soon(began.clear)
    loop.stop()
    assert began.is_set()


def test_threads_are_reused_and_errors_are_told():
    threads = DaemonThreads(2, "test")
    names = {threads.submit(lambda: threading.current_thread().name).result(PATIENCE) for _ in range(20)}
    assert names <= {"test-1", "test-2"}
    hold = threading.Event()
    held = [threads.submit(hold.wait, PATIENCE) for _ in range(6)]
    hold.set()
    assert all(one.result(PATIENCE) for one in held)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(PATIENCE)
