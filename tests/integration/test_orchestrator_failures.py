"""What happens when processes are killed: a clear status within seconds, and every run ends or goes on, defined."""

import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import psutil
import pytest
from support.limits import PATIENCE, QUICK
from support.orchestrator import Orchestrator, refused, snapshot, state_names, tiny_items, until
from support.server_process import ServerProcess
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, sparsifier_pb2, trainer_pb2

SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step; none ends early
RUNNING = common_pb2.RUN_STATE_RUNNING


@pytest.fixture
def home(tmp_path):
    yield tmp_path / "home"
    # Nothing may outlive a test: neither services nor training processes of an orchestrator that was killed.
    for process in psutil.process_iter():
        try:
            if process.environ().get("CELLSPARSE_HOME") == str(tmp_path / "home"):
                process.kill()
        except psutil.Error:
            continue


def started(orchestrator, steps=60):
    """Start a slow run and wait until it has a checkpoint."""
    orchestrator.healthy("unet")
    run = orchestrator.train(orchestrator.upload().id, steps=steps, **SLOW)
    until(lambda: orchestrator.run(run.id).state == RUNNING and orchestrator.run(run.id).progress.step >= 5)
    return run


def list_so_far(orchestrator, run_id):
    """The events of a run that goes on."""
    newest = []
    stream = orchestrator.runs.WatchRun(orchestrator_pb2.WatchRunRequest(run_id=run_id), timeout=2)
    with pytest.raises(grpc.RpcError, match="Deadline Exceeded"):
        newest.extend(answer.event for answer in stream)
    return newest


def test_a_killed_trainer_costs_one_attempt(home):
    with Orchestrator(home) as orchestrator:
        run = started(orchestrator)
        trainer = orchestrator.service("unet").pid
        before = list_so_far(orchestrator, run.id)
        os.kill(trainer, signal.SIGKILL)
        killed = time.monotonic()
        stream = orchestrator.watch(run.id, after=before[-1].sequence)
        events = [(time.monotonic() - killed, event) for event in stream]
        noticed, retrying = next((t, event) for t, event in events if event.state == common_pb2.RUN_STATE_RETRYING)
        assert noticed < QUICK
        assert retrying.reason == common_pb2.FAILURE_REASON_LOST
        assert "attempt 2 begins" in retrying.message.lower()
        assert state_names(event for _, event in events)[-3:] == ["STARTING", "RUNNING", "SUCCEEDED"]
        ended = orchestrator.run(run.id)
        assert ended.attempts == 2
        second = [event.training for _, event in events if event.attempt == 2 and event.training.losses]
        assert second[0].step > 5, "the second attempt did not resume"


def test_a_trainer_that_always_dies_fails_the_run(home):
    with Orchestrator(home, CELLSPARSE_START_SECONDS="4") as orchestrator:
        run = started(orchestrator, steps=2000)
        trainer = orchestrator.service("unet").pid
        assert trainer
        end = threading.Event()

        def kill_all():
            while not end.wait(0.05):
                found = orchestrator.service("unet").pid
                if found:
                    try:
                        os.kill(found, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

        killer = threading.Thread(target=kill_all)
        killer.start()
        try:
            names = state_names(orchestrator.watch(run.id))
        finally:
            end.set()
            killer.join()
        ended = orchestrator.run(run.id)
        assert names[-1] == "FAILED"
        assert (ended.attempts, ended.reason) == (3, common_pb2.FAILURE_REASON_LOST)
        assert "attempt 3 of 3" in ended.message


def test_cancelling_works_without_a_trainer(home):
    with Orchestrator(home) as orchestrator:
        run = started(orchestrator, steps=2000)
        trainer = psutil.Process(orchestrator.service("unet").pid)
        trainer.suspend()
        orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
        trainer.kill()
        assert state_names(orchestrator.watch(run.id))[-1] == "CANCELLED"


def test_a_killed_orchestrator_adopts_what_goes_on(home):
    with Orchestrator(home) as first:
        run = started(first, steps=150)
        pids = {name: first.service(name).pid for name in ("unet", "sparsifier")}
        seen = list_so_far(first, run.id)
        first.kill()
    time.sleep(1)
    with Orchestrator(home) as second:
        second.healthy("unet")
        assert {name: second.service(name).pid for name in pids} == pids
        events = list(second.watch(run.id))
        assert events[: len(seen)] == seen
        assert state_names(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        assert second.run(run.id).attempts == 1
        trained = [event.training.sequence for event in events if event.HasField("training")]
        assert trained == list(range(1, len(trained) + 1)), "an event is missing or doubled"
        steps = [event.training.step for event in events if event.training.losses]
        assert steps == sorted(set(steps))
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


def test_an_orderly_stop_is_not_held_against_a_run(home):
    with Orchestrator(home) as first:
        run = first.train(first.upload().id, steps=60, **SLOW)
        until(lambda: first.run(run.id).progress.step >= 5)
        stream = first.watch(run.id, after=2)
        assert next(stream).sequence == 3
        begin = time.monotonic()
        os.kill(first.pid, signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "stopping" in caught.value.details()
        assert first.wait(PATIENCE) == 0
        assert time.monotonic() - begin < QUICK
        assert not (home / "orchestrator.json").exists()
    with Orchestrator(home) as second:
        request = orchestrator_pb2.GetRunRequest(run_id=run.id)
        assert second.runs.GetRun(request, timeout=PATIENCE).run.state in (
            common_pb2.RUN_STATE_RETRYING,
            common_pb2.RUN_STATE_STARTING,
        )
        assert state_names(second.watch(run.id)) == [
            "QUEUED", "STARTING", "RUNNING", "RETRYING", "STARTING", "RUNNING", "SUCCEEDED",
        ]  # fmt: skip


def test_a_killed_sparsifier_leaves_nothing(home):
    with Orchestrator(home, CELLSPARSE_TRAINER_MODULES="unet=not_installed_at_all") as orchestrator:
        pid = orchestrator.healthy("sparsifier").pid
        dataset = orchestrator.upload(tiny_items(400, size=64))
        before = [row for row in snapshot(orchestrator)[1] if "datasets" in row]
        request = dataset_pb2.CreateSparseDatasetRequest(
            dataset_id=dataset.id,
            settings=sparsifier_pb2.SparsifySettings(
                mode=sparsifier_pb2.SELECTION_MODE_MINMAX, k=1, background=sparsifier_pb2.BACKGROUND_RULE_RING
            ),
        )
        stream = orchestrator.datasets.CreateSparseDataset(request, timeout=PATIENCE)
        next(stream)
        os.kill(pid, signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert time.monotonic() - begin < QUICK
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "sparsifier" in caught.value.details()
        assert [row for row in snapshot(orchestrator)[1] if "datasets" in row] == before
        orchestrator.healthy("sparsifier", but_not=pid)
        answers = list(orchestrator.datasets.CreateSparseDataset(request, timeout=PATIENCE))
        assert answers[-1].dataset.items == 400


def test_predict_without_a_trainer_is_unavailable_at_once(home):
    with Orchestrator(home) as orchestrator:
        orchestrator.healthy("unet")
        run = orchestrator.train(orchestrator.upload().id, steps=2)
        assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"
        request = trainer_pb2.PredictRequest(model_id=run.id, image=encode_tiff(blobs()[0]))
        os.kill(orchestrator.service("unet").pid, signal.SIGKILL)
        error = refused(orchestrator.runs.Predict, request)
        assert error.status == grpc.StatusCode.UNAVAILABLE
        assert "unet" in error.message


def test_what_is_not_installed_is_said_and_not_fatal(home):
    modules = "unet=not_installed_at_all"
    with Orchestrator(home, CELLSPARSE_TRAINER_MODULES=modules) as orchestrator:
        found = until(lambda: "not installed" in orchestrator.service("unet").message and orchestrator.service("unet"))
        assert not found.healthy
        with pytest.raises(grpc.RpcError) as caught:
            orchestrator.train(orchestrator.upload().id)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "not_installed_at_all" in caught.value.details()


def test_given_trainers_go_on_without_the_orchestrator(home, tmp_path):
    (tmp_path / "trainer").mkdir()
    with ServerProcess(["-m", "support.cellsparse_fake"], home / "store", tmp_path / "trainer") as trainer:
        settings = {"CELLSPARSE_LAUNCHER": "static", "CELLSPARSE_TRAINERS": f"unet={trainer.address}"}
        with Orchestrator(home, **settings) as first:
            run = started(first, steps=150)
        with Orchestrator(home, **settings) as second:
            assert state_names(second.watch(run.id)) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
            assert second.run(run.id).attempts == 1


def test_a_home_has_one_orchestrator(home):
    with Orchestrator(home, CELLSPARSE_LAUNCHER="static"):
        environment = {**os.environ, "CELLSPARSE_HOME": str(home), "CELLSPARSE_PORT": "0"}
        command = [sys.executable, "-m", "cellsparse_orchestrator"]
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert second.returncode == 1
        assert str(home) in second.stderr
        assert "Traceback" not in second.stderr
