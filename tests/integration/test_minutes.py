"""Trainings of given length, with the real process of a trainer: measured once, resumed and repeated bit by bit."""

import json
import re

import psutil
import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

MINUTES = 0.4
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
WORKER = "cellsparse_trainer.training.worker"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trainer")


@pytest.fixture(scope="module")
def store(folder):
    store = open_store(StoreSettings(store_url=f"file://{folder / 'store'}"))
    write_dataset(store)
    return store


@pytest.fixture(scope="module")
def server(folder, store):
    with ServerProcess(["-m", "cellsparse_unet"], folder / "store", folder, **ONE_THREAD) as server:
        yield server


@pytest.fixture
def stub(server):
    with open_channel(server.address) as channel:
        yield trainer_pb2_grpc.TrainerServiceStub(channel)


def start(stub, run_id, attempt=1, **given):
    settings = trainer_pb2.TrainingSettings(
        batch_size=2, crop_size=32, checkpoint_every_steps=20, unet=trainer_pb2.UnetSettings(base_channels=4), seed=5
    )
    settings.MergeFrom(trainer_pb2.TrainingSettings(**given))
    asked = trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=attempt, dataset_id="ds-tiny", settings=settings)
    stub.StartTraining(asked, timeout=PATIENCE)
    watched = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=attempt)
    return (answer.event for answer in stub.WatchTraining(watched, timeout=LONG_PATIENCE))


def logged(events):
    """All lines of the log of an attempt that succeeded, and its last event."""
    found = list(events)
    assert found[-1].state == common_pb2.RUN_STATE_SUCCEEDED, found[-1].message
    return "\n".join(line for event in found for line in event.log_lines), found[-1]


def model(store, run_id):
    config = json.loads(store.get(keys.model_file(run_id, "config.json")))["config"]
    return config["plan"], store.get(keys.model_file(run_id, "unet.pt"))


@pytest.fixture(scope="module")
def timed(server, store):
    """A run of half a minute: its log, its last event, its plan and its weights."""
    with open_channel(server.address) as channel:
        log, last = logged(
            start(trainer_pb2_grpc.TrainerServiceStub(channel), "run-timed", minutes=MINUTES, patience=0)
        )
    return log, last, *model(store, "run-timed")


def test_a_training_of_given_length_takes_about_that(timed):
    log, last, plan, _ = timed
    assert f"Budget: {plan['budget']}" in log
    assert plan["budget"].startswith(f"{plan['steps']} steps fit into 0.4 minutes")
    assert last.total_steps == plan["steps"]
    if "minutes are over" not in log:  # the machine did not become busier meanwhile
        assert last.step == plan["steps"]
        assert float(re.search(r"Of ([\d.]+) s, ", log)[1]) < 2 * 60 * MINUTES


def test_the_record_repeats_it_bit_by_bit(timed, stub, store):
    _, last, plan, weights = timed
    given = {"steps": plan["steps"], "validate_every_steps": plan["validate_every"], "patience": 0}
    if last.step < plan["steps"]:
        pytest.skip("the machine became slower, and the training ended with its time")
    logged(start(stub, "run-again", **given))
    assert model(store, "run-again")[1] == weights


def test_killed_and_resumed_takes_the_same_steps(timed, stub, server, store):
    """The second attempt reads what the first one chose, although the machine may be faster or slower now."""
    _, undisturbed, plan, weights = timed
    chosen = {name: plan[name] for name in ("steps", "batch_size", "validate_every", "warmup_steps", "minutes")}
    kept = {**chosen, "budget": "as the first attempt chose", "finishing": 1.0}
    store.put(keys.report_file("run-killed", "budget.json"), json.dumps(kept).encode())
    events = start(stub, "run-killed", minutes=MINUTES, patience=0)
    next(event for event in events if event.HasField("checkpoint_step"))
    (process,) = (each for each in psutil.Process(server.pid).children() if WORKER in each.cmdline())
    process.kill()
    assert list(events)[-1].reason == common_pb2.FAILURE_REASON_LOST
    log, last = logged(start(stub, "run-killed", 2, minutes=MINUTES, patience=0))
    assert "Budget: as the first attempt chose" in log
    assert last.total_steps == plan["steps"]
    if "minutes are over" in log or undisturbed.step < plan["steps"]:
        pytest.skip("the machine became slower, and a training ended with its time")
    assert model(store, "run-killed")[1] == weights
