import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from support.counting_sampler import CountingSampler
from support.limits import PATIENCE
from support.paths import TESTS

from cellsparse_common.errors import Internal, StorageError
from cellsparse_trainer.data import prefetch
from cellsparse_trainer.data.prefetch import AHEAD, Prefetch, default_workers


@pytest.fixture(autouse=True)
def _tests_are_found_by_the_processes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def start(tmp_path):
    running = []

    def make(workers=2, steps=20, **values):
        running.append(Prefetch(CountingSampler(5, str(tmp_path / "log"), **values), workers=workers, steps=steps))
        return running[-1]

    yield make
    for one in running:
        one.close()


def made(tmp_path):
    lines = (tmp_path / "log").read_text().splitlines()
    return sorted(int(line.split()[0]) for line in lines)


def gone(pids):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_samplers_whatever_the_number_of_processes(start, tmp_path, workers):
    ahead, plain = start(workers), CountingSampler(5, os.devnull)
    for step in [*range(6), 2, 3, 15, 16, 19]:  # a resumed training starts anywhere
        np.testing.assert_array_equal(ahead.batch(step), plain.batch(step))


def test_no_more_batches_are_made_than_the_bound_allows_and_none_beyond_the_last_step(start, tmp_path):
    ahead = start(2, steps=9, size=10_000)
    ahead.batch(0)
    deadline = time.monotonic() + PATIENCE
    while len(made(tmp_path)) < 1 + 2 * AHEAD and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert made(tmp_path) == list(range(1 + 2 * AHEAD))
    for step in range(1, 9):
        ahead.batch(step)
    assert made(tmp_path) == list(range(9))
    pids = ahead.pids
    ahead.close()
    assert gone(pids)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [("raise", StorageError, "item 'a' is damaged"), ("memory", MemoryError, "allocate"), ("exit", Internal, "code 7")],
)
def test_what_goes_wrong_in_a_process_goes_wrong_in_the_training_at_that_step(start, act, error, words):
    ahead = start(2, act=act)
    for step in range(3):
        ahead.batch(step)
    with pytest.raises(error, match=words):
        ahead.batch(3)


@pytest.mark.parametrize(("kills", "error"), [((3, 3), Internal), ((3, 4), MemoryError)])
def test_a_process_that_the_kernel_kills_for_its_memory_ran_out_of_it(start, monkeypatch, kills, error):
    counts = iter(kills)
    monkeypatch.setattr(prefetch, "memory_kills", lambda: next(counts))
    ahead = start(1, act="hang", at=0)
    psutil.Process(ahead.pids[0]).kill()
    with pytest.raises(error):
        ahead.batch(0)


def test_a_process_that_is_killed_while_it_sends_is_noticed_at_once(start, tmp_path):
    ahead = start(1, size=4_000_000)
    ahead.batch(0)
    deadline = time.monotonic() + 60
    while 1 not in made(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # 32 MB wait to be read
    psutil.Process(ahead.pids[0]).kill()
    with pytest.raises(Internal, match="code -9"):
        ahead.batch(1)


def test_a_process_that_hangs_is_not_waited_for_without_end(start, monkeypatch):
    monkeypatch.setattr(prefetch, "WAIT_SECONDS", 20.0)
    ahead = start(1, act="hang", at=0)
    monkeypatch.setattr(prefetch, "WAIT_SECONDS", 0.2)
    with pytest.raises(Internal, match="no batch for step 0"):
        ahead.batch(0)
    pids = ahead.pids
    ahead.close()  # it works on, and is killed
    assert gone(pids)


def test_batches_need_no_shared_memory_and_may_be_large(start):
    before = sorted(os.listdir("/dev/shm"))  # noqa: PTH208
    assert start(1, size=4_000_000).batch(0).nbytes == 32_000_000
    new = set(os.listdir("/dev/shm")) - set(before)  # noqa: PTH208
    assert not [name for name in new if name.startswith(("psm_", "pym", "torch"))]


def test_killing_the_training_leaves_no_process(tmp_path):
    code = (
        "import sys, time\n"
        "from support.counting_sampler import CountingSampler\n"
        "from cellsparse_trainer.data.prefetch import Prefetch\n"
        f"ahead = Prefetch(CountingSampler(1, {str(tmp_path / 'log')!r}, 'hang', 1), workers=2, steps=99)\n"
        "ahead.batch(0)\n"
        "print(*ahead.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    training = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in training.stdout.readline().split()]
    assert len(pids) == 2
    training.kill()
    training.wait(PATIENCE)
    assert gone(pids)


def test_by_default_only_a_gpu_is_worth_processes(monkeypatch):
    gpu = ["cpu", "cuda:0 NVIDIA A100"]
    monkeypatch.setattr(prefetch, "usable_cpus", lambda: 8)
    assert (default_workers(["cpu"], "auto"), default_workers(gpu, "cpu"), default_workers(gpu, "auto")) == (0, 0, 4)
    monkeypatch.setattr(prefetch, "usable_cpus", lambda: 2)
    assert default_workers(gpu, "cuda") == 1
