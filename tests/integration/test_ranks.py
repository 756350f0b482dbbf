"""Several processes train one model: as one process with all their crops does, and all or nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from support.limits import LONG_PATIENCE, PATIENCE, QUICK
from support.server_process import TESTS, ServerProcess
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

WORKER = "cellsparse_trainer.training.worker"

BACKENDS = {
    # One for each framework: Cellpose differs from the U-Net in what it computes, which is compared below.
    "stardist": trainer_pb2.TrainingSettings(
        precision=trainer_pb2.PRECISION_FLOAT32,
        stardist=trainer_pb2.StardistSettings(n_rays=8, unet_depth=1, unet_filters=4),
    ),
    "unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4)),
}


def on(*backends):
    """For a test: the backends whose trainer it needs."""
    return pytest.mark.parametrize("trainer", backends, indirect=True)


TORCH = pytest.mark.parametrize("backend", ["cellpose", "unet"])
STEPS = 20
NOTICED_SECONDS = 120.0
"""Within which a lost or hung process ends the attempt everywhere; the promise is 20 s, on an idle machine."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
TOLERANCE = 1e-5
"""Of losses, absolute."""
KILLED_STEPS, LAST_STEPS = 60, 5
AS_GOOD = 1e-4
"""Of the last losses and the validation score of a run that was disturbed, against those of one that was not, absolute:
crops depend on seed, step and place alone, and checkpoints hold all else."""
AS_GOOD_WITH_FEWER = 0.02
"""The same where fewer processes went on: these add up in another order, and optimizers magnify what float32 rounds.
In float64 they are as equal as above."""


@pytest.fixture(scope="module")
def trainer(request, tmp_path_factory):
    """Name of a backend, process id and stub of its server, and the store."""
    folder = tmp_path_factory.mktemp("ranks")
    store = open_store(StoreSettings(store_url=f"file://{folder / 'store'}"))
    write_dataset(store, "ds-tiny")
    settings = {**ONE_THREAD, "CELLSPARSE_START_SECONDS": f"{LONG_PATIENCE:.0f}"}
    server = ServerProcess(["-m", f"cellsparse_{request.param}"], folder / "store", folder, **settings)
    with server, open_channel(server.address) as channel:
        yield request.param, server.pid, trainer_pb2_grpc.TrainerServiceStub(channel), store


def settings(backend, *, processes, batch, steps=STEPS, **others):
    given = trainer_pb2.TrainingSettings(
        steps=steps,
        batch_size=batch,
        crop_size=32,
        checkpoint_every_steps=1,  # each is reported with the losses since the one before
        seed=3,
        learning_rate=1e-4,
        patience=0,
        processes_per_node=processes,
        rate_scaling=trainer_pb2.RATE_SCALING_NONE,
        **{"validate_every_steps": steps, **others},
    )
    given.MergeFrom(BACKENDS[backend])
    return given


def start(stub, run_id, given, attempt=1, hosts=()):
    """Start an attempt and return its events as they come; with `hosts`, on these nodes only, of which this is one."""
    request = trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=attempt, dataset_id="ds-tiny", settings=given)
    if hosts:
        request.placement.CopyFrom(trainer_pb2.Placement(hosts=hosts, port=29400))
    stub.StartTraining(request, timeout=PATIENCE)
    asked = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=attempt)
    return (answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE))


def succeed(events):
    events = list(events)
    assert events[-1].state == common_pb2.RUN_STATE_SUCCEEDED, events[-1]
    return events


def workers(pid):
    """The training processes below a server, by rank."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        if WORKER in process.cmdline() and "torch.distributed.run" not in process.cmdline():
            found[int(process.environ()["RANK"])] = process
    return found


@pytest.fixture(scope="module")
def undisturbed(trainer):
    """The events of a run that nobody disturbs, for all blows against one backend."""
    backend, _, stub, _ = trainer
    return succeed(start(stub, "run-calm", settings(backend, processes=2, batch=2, steps=KILLED_STEPS)))


def end(events):
    """The losses of a run's last steps, by step, and its model's scores."""
    seen = {event.step: event.losses["loss"] for event in events if event.losses}
    return {step: seen[step] for step in sorted(seen)[-LAST_STEPS:]}, dict(events[-1].validation)


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """What `support.rank_losses` finds, by case and rank."""
    folder = tmp_path_factory.mktemp("losses")
    environment = {**os.environ, "PYTHONPATH": str(TESTS), **ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "support.rank_losses", str(folder), str(STEPS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG_PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        case.name: {int(path.stem): json.loads(path.read_text()) for path in case.glob("*.json")}
        | {"weights": np.load(case / "weights.npy")}
        for case in folder.iterdir()
    }


@TORCH
def test_two_processes_of_torch_compute_what_one_does(losses, backend):
    """In float64: in float32 optimizers magnify the rounding of sums that are added up in another order."""
    alone = losses[f"{backend}-1-FLOAT32"][0]
    together = losses[f"{backend}-2-FLOAT32"]
    assert together[0]["weights"] == together[1]["weights"]
    for rank in range(2):
        assert together[rank]["losses"] == pytest.approx(alone["losses"], abs=TOLERANCE)
    assert len(set(alone["losses"])) == STEPS


@pytest.mark.parametrize("case", ["cellpose-2-FLOAT32-1", "unet-2-FLOAT32-1", "unet-4-FLOAT32-3"])
def test_fewer_processes_go_on_with_a_checkpoint_as_all_would_have(losses, case):
    """After half of the steps; also where the crops of a step are no multiple of the processes that are left."""
    backend, _, _, left = case.split("-")
    alone, fewer = losses[f"{backend}-1-FLOAT32"], losses[case]
    for rank in range(int(left)):
        assert fewer[rank]["losses"] == pytest.approx(alone[0]["losses"][STEPS // 2 :], abs=TOLERANCE)
    np.testing.assert_allclose(fewer["weights"], alone["weights"], atol=TOLERANCE)


def test_gradients_may_travel_as_half_as_many_bytes(losses):
    together, whole = losses["unet-2-FLOAT16"], losses["unet-2-FLOAT32"]
    assert together[0]["weights"] == together[1]["weights"]
    assert together[0]["losses"][0] == whole[0]["losses"][0]
    assert together[0]["losses"] == pytest.approx(whole[0]["losses"], rel=0.1)
    assert together[0]["losses"] != whole[0]["losses"]


@on("stardist")
def test_two_processes_learn_what_one_with_both_batches_does(trainer, undisturbed):
    """As clients see it, in float32: torch's optimizers would magnify its rounding, see above."""
    backend, _, stub, _ = trainer
    given = settings(backend, processes=1, batch=4, steps=KILLED_STEPS)
    one, two = (
        {event.step: event.losses["loss"] for event in events if event.losses}
        for events in (succeed(start(stub, "run-one", given)), undisturbed)
    )
    assert sorted(one) == sorted(two) == list(range(1, KILLED_STEPS + 1))
    assert two == pytest.approx(one, abs=TOLERANCE)


@on("unet")
@pytest.mark.parametrize(("blow", "rank", "left"), [("KILL", 0, 2), ("STOP", 1, 1)])
def test_a_lost_process_ends_the_attempt_and_the_next_one_is_as_good_as_undisturbed(
    trainer, undisturbed, blow, rank, left
):
    hit_one(trainer, undisturbed, blow, rank, left)


@on("stardist")
@pytest.mark.parametrize("left", [2, 1])
def test_a_lost_process_of_tensorflow_is_no_worse(trainer, undisturbed, left):
    hit_one(trainer, undisturbed, "KILL", 1, left)


def hit_one(trainer, undisturbed, blow, rank, left):
    """Send a signal to one of two processes; compare what the next attempt makes of it with an undisturbed run.

    Args:
        trainer: The fixture.
        undisturbed: The fixture.
        blow: Name of the signal.
        rank: Which process it hits.
        left: How many nodes the next attempt has, of two with a process each.
    """
    backend, pid, stub, store = trainer
    run_id = f"run-{blow.lower()}-{rank}-{left}"
    given = settings(backend, processes=1, batch=2, steps=KILLED_STEPS, nodes=2, min_nodes=1)
    events = start(stub, run_id, given)
    next(event for event in events if event.state == common_pb2.RUN_STATE_RUNNING)
    hit = workers(pid)
    assert sorted(hit) == [0, 1]
    next(event for event in events if event.checkpoint_step >= 3)
    hit[rank].send_signal(getattr(signal, f"SIG{blow}"))
    then = time.monotonic()
    last = list(events)[-1]
    took = time.monotonic() - then
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_LOST), last
    assert took < NOTICED_SECONDS
    assert psutil.wait_procs(hit.values(), timeout=NOTICED_SECONDS - took)[1] == []
    hosts = ["127.0.0.1"] if left == 1 else ()
    events = succeed(start(stub, run_id, given, attempt=2, hosts=hosts))
    assert min(event.step for event in events if event.losses) > 1  # it went on, it did not begin anew
    fewer = "1 of 2 processes train: each makes up to 4 crops of a step instead of 2."
    assert any(fewer in line for event in events for line in event.log_lines) == (left == 1)
    assert store.exists(keys.model_file(run_id, "model.json"))
    for found, expected in zip(end(events), end(undisturbed), strict=True):
        assert found == pytest.approx(expected, abs=AS_GOOD_WITH_FEWER if left == 1 else AS_GOOD)


@on("unet")
def test_as_many_processes_as_there_are_go_on_with_another_number(trainer):
    """One process begins, two go on, one ends: what is left of a node is enough."""
    backend, _, stub, _ = trainer
    steps = 0
    for attempt, processes in enumerate((1, 2, 1), start=1):
        given = settings(backend, processes=processes, batch=2, steps=steps + 5)
        events = succeed(start(stub, "run-changing", given, attempt))
        assert min(event.step for event in events if event.losses) == steps + 1
        steps += 5
    assert events[-1].step == steps


@on("stardist")
def test_a_run_that_is_stopped_ends_all_its_processes(trainer):
    backend, pid, stub, _ = trainer
    events = start(stub, "run-stopped", settings(backend, processes=2, batch=2, steps=4000))
    next(event for event in events if event.checkpoint_step >= 2)
    hit = workers(pid)
    stub.StopTraining(trainer_pb2.StopTrainingRequest(run_id="run-stopped", attempt=1), timeout=PATIENCE)
    assert list(events)[-1].state == common_pb2.RUN_STATE_CANCELLED
    assert psutil.wait_procs(hit.values(), timeout=QUICK)[1] == []
