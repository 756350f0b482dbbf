"""Work in other processes: errors are told without frameworks, and what nobody waits for is stopped."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common import cpus
from cellsparse_common.errors import Busy, Cancelled, DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from cellsparse_common.rpc.callers import Caller
from cellsparse_trainer.processes.inference_environments import inference_environments
from cellsparse_trainer.processes.inference_pool import Asker, InferencePool
from cellsparse_trainer.processes.thread_counts import THREAD_NAMES


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own; a class that the server cannot load stands for a framework's."""

    def __reduce__(self):
        return _unknown, ()


class FrameworkError(OutOfMemoryError):
    """Any other error of a framework."""


def _unknown():
    raise AssertionError("the server loads a framework's class")


def raises(error):
    raise ERRORS[error]


ERRORS = {
    "memory": OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "other": FrameworkError("cuDNN is not loaded"),
    "ours": InvalidArgument("k is 0.", "k"),
}


def note_and_wait(folder, name, until_there="go"):
    """Write down that it began, and end when a file is there."""
    (folder / f"began-{name}").touch()
    while not (folder / until_there).exists():
        time.sleep(0.01)
    return name, os.getpid()


def one(number):
    return number, os.getpid()


def several(arguments):
    if ("killer",) in arguments:
        os.kill(os.getpid(), signal.SIGKILL)
    return [InvalidArgument("three") if number == 3 else (number, "together") for (number,) in arguments]


@pytest.fixture(scope="module")
def shared():
    running = InferencePool([{}], 32, 60, grace_seconds=0.1)
    yield running
    running.close()


@pytest.fixture
def pool(tmp_path):
    running = InferencePool([{}], 3, 60, grace_seconds=0.1)
    yield running
    running.close()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(16) as running:
        yield running


def asker(owner="", seconds=PATIENCE, **fields):
    return Asker(seconds=seconds, caller=Caller(owner, owner), **fields)


def blocked(pool, threads, folder, name="first", **fields):
    """Let the pool's process be busy until the file `go` is there, or nobody waits for it any more."""
    waiting = threads.submit(pool.call, note_and_wait, folder, name, asker=asker(**fields))
    until((folder / f"began-{name}").exists)
    return waiting


@pytest.mark.parametrize(
    ("error", "found", "words"),
    [
        ("memory", ResourceExhausted, "Memory ran out in the prediction"),
        ("other", RuntimeError, "FrameworkError: cuDNN is not loaded"),
        ("ours", InvalidArgument, "k is 0"),
    ],
)
def test_errors(shared, error, found, words):
    with pytest.raises(found, match=words):
        shared.call(raises, error, asker=asker())


def test_what_waits_is_done_together(shared, threads, tmp_path):
    first = blocked(shared, threads, tmp_path)
    rest = [
        threads.submit(shared.call, one, number, asker=asker(), group="one", together=several) for number in range(5)
    ]
    until(lambda: shared.waiting == 5)
    (tmp_path / "go").touch()
    first.result(PATIENCE)
    with pytest.raises(InvalidArgument, match="three"):
        rest.pop(3).result(PATIENCE)
    assert sorted(done.result(PATIENCE) for done in rest) == [(n, "together") for n in (0, 1, 2, 4)]


def test_what_fails_together_is_done_apart(shared, threads, tmp_path):
    first = blocked(shared, threads, tmp_path)
    rest = [
        threads.submit(shared.call, one, each, asker=asker(), group="one", together=several) for each in (1, "killer")
    ]
    until(lambda: shared.waiting == 2)
    (tmp_path / "go").touch()
    first.result(PATIENCE)
    assert [done.result(PATIENCE)[0] for done in rest] == [1, "killer"]


def test_what_is_too_much_is_refused_and_comes_back(pool, threads, tmp_path):
    first = blocked(pool, threads, tmp_path)
    rest = [threads.submit(pool.call, one, number, asker=asker(str(number))) for number in range(3)]
    until(lambda: pool.waiting == 3)
    with pytest.raises(Busy, match="number 4 in line, and 3 may wait"):
        pool.call(one, 3, asker=asker("3"))
    (tmp_path / "go").touch()
    assert {done.result(PATIENCE)[0] for done in rest} == {0, 1, 2}
    assert first.result(PATIENCE)[0] == "first"
    assert pool.call(one, 3, asker=asker("3"))[0] == 3


def test_work_whose_caller_goes_is_not_begun(pool, threads, tmp_path):
    first = blocked(pool, threads, tmp_path)
    go: list = []
    gone = threads.submit(
        pool.call, note_and_wait, tmp_path, "gone", asker=asker(when_gone=lambda call: go.append(call) or True)
    )
    until(lambda: pool.waiting == 1 and go)
    go[0]()
    with pytest.raises(Cancelled):
        gone.result(PATIENCE)
    assert pool.waiting == 0
    with pytest.raises(Cancelled):
        pool.call(one, 1, asker=asker(when_gone=lambda _: False))
    (tmp_path / "go").touch()
    assert first.result(PATIENCE)[0] == "first"
    assert not (tmp_path / "began-gone").exists()


def test_work_that_is_late_in_the_queue_is_not_begun(pool, threads, tmp_path):
    first = blocked(pool, threads, tmp_path)
    with pytest.raises(DeadlineExceeded, match="longer than 0 s, with the time in the queue"):
        pool.call(note_and_wait, tmp_path, "late", asker=asker(seconds=0.2))
    (tmp_path / "go").touch()
    assert first.result(PATIENCE)[0] == "first"
    assert not (tmp_path / "began-late").exists()


def test_running_work_whose_caller_goes_is_stopped(pool, threads, tmp_path):
    go: list = []
    gone = blocked(pool, threads, tmp_path, when_gone=lambda call: go.append(call) or True)
    after = threads.submit(pool.call, one, 1, asker=asker())
    go[0]()
    with pytest.raises(Cancelled):
        gone.result(PATIENCE)
    assert after.result(PATIENCE)[0] == 1  # which can only be if the first was stopped: its file is not there


def test_several_processes_work_at_the_same_time(threads, tmp_path):
    pool = InferencePool([{}, {}], 3, 60)
    both = [
        threads.submit(pool.call, note_and_wait, tmp_path, name, f"began-{other}", asker=asker())
        for name, other in (("a", "b"), ("b", "a"))
    ]
    assert len({done.result(PATIENCE)[1] for done in both}) == 2
    pool.close()
    with pytest.raises(Unavailable):
        pool.call(one, 1, asker=asker())


def test_who_waits_at_the_end_is_told(pool, threads, tmp_path):
    first = blocked(pool, threads, tmp_path)
    second = threads.submit(pool.call, one, 1, asker=asker())
    until(lambda: pool.waiting == 1)
    pool.close()
    for each in (first, second):
        with pytest.raises(Unavailable):
            each.result(PATIENCE)


def test_an_idle_process_ends(threads):
    pool = InferencePool([{}], 3, 0.2)
    _, pid = pool.call(one, 1, asker=asker())
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert pool.call(one, 1, asker=asker())[1] != pid
    pool.close()
    assert threading.active_count()


@pytest.mark.parametrize(
    ("processes", "gpus", "environment", "found"),
    [
        (0, 0, {}, [{}]),
        (1, 0, {}, [{}]),
        (2, 0, {}, [dict.fromkeys(THREAD_NAMES, "4")] * 2),
        (16, 0, {THREAD_NAMES[0]: "3"}, [dict.fromkeys(THREAD_NAMES[1:], "1")] * 16),
        (0, 2, {}, [dict.fromkeys(THREAD_NAMES, "4") | {"CUDA_VISIBLE_DEVICES": name} for name in "01"]),
        (3, 2, {}, [dict.fromkeys(THREAD_NAMES, "2") | {"CUDA_VISIBLE_DEVICES": name} for name in "010"]),
        (
            0,
            4,
            {"CUDA_VISIBLE_DEVICES": "3, 1"},
            [dict.fromkeys(THREAD_NAMES, "4") | {"CUDA_VISIBLE_DEVICES": name} for name in "31"],
        ),
        (0, 4, {"CUDA_VISIBLE_DEVICES": ""}, [{}]),
    ],
)
def test_what_each_process_has(monkeypatch, processes, gpus, environment, found):
    monkeypatch.setattr(cpus, "visible_cpus", lambda: 8)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: None)
    assert inference_environments(processes, gpus, environment) == found
