"""Training processes that are forked: equal to those that start from nothing, and as well looked after."""

import os
import signal
import subprocess
import time

import pytest
from support.cellsparse_fake import BACKEND
from support.fuzz.watch import open_files
from support.limits import PATIENCE
from support.paths import TESTS
from support.tiny_dataset import write_dataset

from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.processes.attempts import Attempts, AttemptSettings
from cellsparse_trainer.processes.fork_server import LOST, WORKER, ForkedProcess, ForkServer
from cellsparse_trainer.processes.orphan import ORPHANED
from cellsparse_trainer.training.resolution import Resolution


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes the attempts of a server that keeps a fork server for a time, 0 for none."""
    store = FolderStore(tmp_path / "store")
    write_dataset(store)
    monkeypatch.setenv("CELLSPARSE_STORE_URL", store.url)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = []

    def attempts(warm_seconds):
        how = AttemptSettings(
            package=BACKEND.package, preload=BACKEND.preload, stop_seconds=5.0, warm_seconds=warm_seconds
        )
        one = Attempts(how, tmp_path / f"work{len(made)}", store)
        one.store = store
        made.append(one)
        return one

    yield attempts
    for one in made:
        one.stop_all()
        one.close()


@pytest.fixture
def here(make):
    return make(60.0)


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


def files(attempts, run_id):
    prefix = keys.model_prefix(run_id)
    return {key.removeprefix(prefix): attempts.store.get(key) for key in attempts.store.list(prefix)}


@pytest.mark.parametrize("warm_seconds", [0.0, 60.0])
def test_attempts_that_have_ended_keep_no_file_open(make, warm_seconds):
    """A trainer that had trained some hundred runs would be able to open none any more."""
    attempts, opened = make(warm_seconds), []
    for number in range(3):
        attempt = begin(attempts, f"run-{number}", steps=1)
        ended(attempt)
        attempt._supervisor.join(PATIENCE)
        opened.append(open_files(os.getpid()))
    assert opened[2] == opened[1] == opened[0]


def test_forked_attempts_are_equal_and_end_like_others(make, here):
    cold = make(0.0)
    first = begin(cold, "run-first")
    assert isinstance(first._process, subprocess.Popen)
    assert cold._fork_server._process is None
    assert ended(first).state == common_pb2.RUN_STATE_SUCCEEDED
    forked = begin(here, "run-forked")  # while the fork server loads
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
    going = begin(here, "run-going", learning_rate=0.9, steps=2000)
    assert going._process.pid > 0
    os.kill(here._fork_server._process.pid, signal.SIGKILL)
    assert ended(going).reason == common_pb2.FAILURE_REASON_LOST
    until(lambda: not os.path.exists(f"/proc/{going._process.pid}"))  # noqa: PTH110
    again = begin(here, "run-again")
    assert isinstance(again._process, ForkedProcess)
    assert ended(again).state == common_pb2.RUN_STATE_SUCCEEDED


def test_processes_end_with_their_server_and_when_idle(here):
    going = begin(here, "run-going", learning_rate=0.9, steps=2000)
    fork_server = here._fork_server
    process = fork_server._process
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


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that a fork server can load, and names it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text):
        (tmp_path / "loaded.py").write_text(text)
        return "loaded"

    return write


def order(server):
    """Orders a process without a job, which ends with an error."""
    return server.start([*WORKER, "/nonexistent"], dict(os.environ))


def end(server, process):
    assert process.wait(PATIENCE) == 1
    assert "/nonexistent" in process.stderr.read()
    server.close()


def test_a_fork_server_may_load_before_anybody_asks(module):
    server = ForkServer(module("import pathlib; pathlib.Path(__file__).with_name('done').touch()"), 60.0, at_once=True)
    loader = server._process
    assert loader is not None
    process = order(server)
    assert server._process is loader
    end(server, process)


def test_orders_wait_for_what_is_left_of_the_loading(module):
    server = ForkServer(module("import time; time.sleep(1)"), 60.0)
    orders = [order(server) for _ in range(3)]
    assert [process.poll() for process in orders] == [None] * 3
    assert len({process.pid for process in orders}) == 3
    assert [process.wait(PATIENCE) for process in orders] == [1] * 3
    server.close()


def test_a_module_that_cannot_be_loaded_is_left_to_the_attempts_to_explain(module):
    server = ForkServer(module("raise RuntimeError('no such device')"), 60.0)
    end(server, order(server))


def test_a_fork_server_that_dies_while_it_loads_loses_its_orders(module):
    server = ForkServer(module("import time; time.sleep(600)"), 60.0)
    process = order(server)
    server._process.kill()
    assert process.wait(PATIENCE) == LOST
    with pytest.raises(ProcessLookupError):
        _ = process.pid
    process.terminate()  # there is nobody to end
    server.close()
