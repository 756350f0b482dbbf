"""Training processes that are forked: equal to those that start from nothing, and as well looked after."""

import os
import signal
import subprocess
import time

import pytest
from support.cellsparse_fake import BACKEND
from support.limits import PATIENCE
from support.paths import TESTS
from support.tiny_dataset import write_dataset

from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.processes.attempts import Attempts, AttemptSettings
from cellsparse_trainer.processes.fork_server import ForkedProcess
from cellsparse_trainer.processes.orphan import ORPHANED
from cellsparse_trainer.training.resolution import Resolution


@pytest.fixture
def here(tmp_path, monkeypatch):
    store = FolderStore(tmp_path / "store")
    write_dataset(store)
    monkeypatch.setenv("CELLSPARSE_STORE_URL", store.url)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    how = AttemptSettings(package=BACKEND.package, preload=BACKEND.preload, stop_seconds=5.0, warm_seconds=60.0)
    attempts = Attempts(how, tmp_path / "work", store)
    attempts.store = store
    yield attempts
    attempts.stop_all()
    attempts.close()


def begin(attempts, run_id, **settings):
    training = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **{"steps": 12, "patience": 0, **settings})
    request = trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=1, dataset_id="ds-tiny", settings=training)
    _, inputs = Resolution(BACKEND.light(), attempts.store)(request)
    attempts.start(request, inputs)
    return attempts._attempts[run_id, 1]


def ended(attempt):
    until(lambda: attempt.log.ended)
    return list(attempt.log.follow(0, lambda: True))[-1]


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def warm_up(attempts):
    """Begin attempts until one is forked."""
    first = begin(attempts, "run-first")
    assert isinstance(first._process, subprocess.Popen)
    assert attempts._fork_server._process is None  # whoever trains once only pays for no fork server
    assert ended(first).state == common_pb2.RUN_STATE_SUCCEEDED
    begin(attempts, "run-second", learning_rate=0.9, steps=2000)
    with attempts._fork_server._lock:
        assert attempts._fork_server._process is not None
    until(lambda: _ready(attempts._fork_server))
    attempts.stop("run-second", 1)


def _ready(fork_server):
    with fork_server._lock:
        return fork_server._is_ready()


def files(attempts, run_id):
    prefix = keys.model_prefix(run_id)
    return {key.removeprefix(prefix): attempts.store.get(key) for key in attempts.store.list(prefix)}


def test_forked_attempts_are_equal_and_end_like_others(here):
    warm_up(here)
    forked = begin(here, "run-forked")
    assert isinstance(forked._process, ForkedProcess)
    last = ended(forked)
    assert last.state == common_pb2.RUN_STATE_SUCCEEDED, last.message
    assert forked._process.wait(PATIENCE) == 0
    plain, own = files(here, "run-first"), files(here, "run-forked")
    for name in ("config.json", "sub/threshold.json"):
        assert own[name] == plain[name]
    until(lambda: here.store.exists(keys.attempt_log("run-forked", 1)))

    killed = begin(here, "run-killed", learning_rate=0.8)  # kills its own process
    assert "signal 9" in ended(killed).message
    stopped = begin(here, "run-stopped", learning_rate=0.9, steps=2000)
    until(lambda: '"step"' in (stopped.job.folder / "events.jsonl").read_text())
    assert os.getsid(stopped._process.pid) == stopped._process.pid
    here.stop("run-stopped", 1)
    assert ended(stopped).state == common_pb2.RUN_STATE_CANCELLED
    assert stopped._process.poll() == 0
    refused = begin(here, "run-broken", learning_rate=0.5)
    assert ended(refused).reason == common_pb2.FAILURE_REASON_INTERNAL


def test_a_killed_fork_server_loses_its_attempts_and_is_replaced(here):
    warm_up(here)
    going = begin(here, "run-going", learning_rate=0.9, steps=2000)
    assert isinstance(going._process, ForkedProcess)
    os.kill(here._fork_server._process.pid, signal.SIGKILL)
    assert ended(going).reason == common_pb2.FAILURE_REASON_LOST
    until(lambda: not os.path.exists(f"/proc/{going._process.pid}"))  # noqa: PTH110
    assert ended(begin(here, "run-next")).state == common_pb2.RUN_STATE_SUCCEEDED
    until(lambda: _ready(here._fork_server))
    again = begin(here, "run-again")
    assert isinstance(again._process, ForkedProcess)
    assert ended(again).state == common_pb2.RUN_STATE_SUCCEEDED


def test_processes_end_with_their_server_and_when_idle(here):
    warm_up(here)
    fork_server = here._fork_server
    process = fork_server._process
    going = begin(here, "run-going", learning_rate=0.9, steps=2000)
    until(lambda: '"step"' in (going.job.folder / "events.jsonl").read_text())
    forked = going._process
    assert isinstance(forked, ForkedProcess)
    assert forked.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        forked.wait(0.05)
    fork_server._idle_seconds = 0.0
    time.sleep(0.1)
    assert process.poll() is None  # not while a process that it must tell of goes on
    forked.stdin.close()  # what a killed server leaves: nothing to read any more
    assert forked.wait(PATIENCE) == ORPHANED
    until(lambda: process.poll() is not None)
