"""An object store that goes away and comes back, with real processes: nothing fails, and all goes on by itself."""

import subprocess
from contextlib import contextmanager

import psutil
import pytest
from support.limits import PATIENCE
from support.minio import KillableMinio, store_environment
from support.orchestrator import Orchestrator, until

from cellsparse_common.storage import keys
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step
QUEUED, RUNNING = common_pb2.RUN_STATE_QUEUED, common_pb2.RUN_STATE_RUNNING
SUCCEEDED, CANCELLED = common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_CANCELLED
FINAL = (SUCCEEDED, common_pb2.RUN_STATE_FAILED, CANCELLED)
WAITING = "waiting for the store: "


@pytest.fixture
def home(tmp_path):
    yield tmp_path / "home"
    for process in psutil.process_iter():  # nothing may outlive a test
        try:
            if process.environ().get("CELLSPARSE_HOME") == str(tmp_path / "home"):
                process.kill()
        except psutil.Error:
            continue


@pytest.fixture
def minio(tmp_path):
    made = KillableMinio(tmp_path / "minio")
    made.start()
    made.server.client().make_bucket("outage")
    yield made
    made.kill()


def train(orchestrator, dataset_id, steps, **settings):
    return orchestrator.train(dataset_id, steps=steps, **settings).id


def is_waiting(orchestrator, run_id):
    return orchestrator.run(run_id).message.startswith(WAITING)


def test_a_store_server_that_is_killed_costs_no_attempt(home, minio):
    store = store_environment(minio.server.settings("s3://outage"))
    with Orchestrator(home, CELLSPARSE_STORE_SECONDS="0.2", **store) as orchestrator:
        orchestrator.healthy("unet")
        dataset_id = orchestrator.upload().id
        runs = [train(orchestrator, dataset_id, steps=150, **SLOW)]
        runs += [train(orchestrator, dataset_id, steps=5) for _ in range(2)]
        until(lambda: orchestrator.run(runs[0]).progress.step >= 5)
        minio.kill()
        until(lambda: is_waiting(orchestrator, runs[0]))
        assert [orchestrator.run(run_id).state for run_id in runs] == [RUNNING, QUEUED, QUEUED]
        minio.start()
        for run_id in runs:
            until(lambda run_id=run_id: orchestrator.run(run_id).state in FINAL)
        ended = [orchestrator.run(run_id) for run_id in runs]
        assert [(run.state, run.attempts) for run in ended] == [(SUCCEEDED, 1)] * 3, ended
        said = [event.training.message for event in orchestrator.watch(runs[0]) if event.training.message]
        assert said[0].startswith(WAITING)
        assert any(sentence.startswith("The store answers again after ") for sentence in said)


@contextmanager
def missing(store):
    away = store.with_name("away")
    store.rename(away)
    yield
    assert not store.exists(), "somebody made a new store in the place of the one that was away"
    away.rename(store)


@contextmanager
def read_only(store):
    def mount(*arguments):
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)

    if mount("--bind", str(store), str(store)).returncode:
        pytest.skip("this machine does not let the test mount a folder")
    try:
        if mount("-o", "remount,ro,bind", str(store)).returncode:
            pytest.skip("this machine does not let the test mount a folder read-only")
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)


@pytest.mark.parametrize("outage", [missing, read_only])
def test_a_store_folder_that_is_away_pauses_the_queue(home, outage):
    with Orchestrator(home, CELLSPARSE_STORE_SECONDS="0.2") as orchestrator:
        orchestrator.healthy("unet")
        dataset_id = orchestrator.upload().id
        first, second = train(orchestrator, dataset_id, steps=100_000, **SLOW), train(orchestrator, dataset_id, steps=5)
        until(lambda: orchestrator.run(first).progress.step >= 5)
        with outage(orchestrator.store):
            until(lambda: is_waiting(orchestrator, first))
            assert orchestrator.run(first).state == RUNNING
            third = train(orchestrator, dataset_id, steps=5)  # of a dataset that is known to be good
            orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=first), timeout=PATIENCE)
            until(lambda: orchestrator.run(first).state == CANCELLED)
            until(lambda: is_waiting(orchestrator, second))
            if orchestrator.run(second).state == QUEUED:  # else it began before anybody noticed, and waits all the same
                status = orchestrator.runs.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=PATIENCE)
                assert status.waiting.startswith(WAITING)
        for run_id in (second, third):
            until(lambda run_id=run_id: orchestrator.run(run_id).state == SUCCEEDED)
            assert orchestrator.run(run_id).attempts == 1
            assert orchestrator.store.joinpath(keys.run_spec(run_id)).exists()
