"""Killed at random steps and resumed equals uninterrupted, bit by bit, with the real processes of every backend."""

import contextlib
import json
import os
import signal
import time

import grpc
import numpy as np
import psutil
import pytest
from support.backends import trained_here
from support.limits import PATIENCE, QUICK
from support.minio import running_minio, store_environment
from support.pointer_watch import PointerWatch
from support.server_process import ServerProcess
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

WORKER = "cellsparse_trainer.training.worker"

BACKENDS = {
    # Steps enough for the kill to come before the end: checkpoints are large, and one under way holds up the next.
    "cellpose": trainer_pb2.TrainingSettings(cellpose=trainer_pb2.CellposeSettings(), steps=30),
    "cellpose_sam": trainer_pb2.TrainingSettings(
        cellpose_sam=trainer_pb2.CellposeSamSettings(encoder_depth=1, encoder_width=16, encoder_heads=2),
        crop_size=256,
    ),
    "stardist": trainer_pb2.TrainingSettings(
        stardist=trainer_pb2.StardistSettings(n_rays=8, unet_depth=1, unet_filters=4)
    ),
    "unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4), steps=30),
    # Sleeps in every step; for the store that takes longer.
    "fake on MinIO": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), learning_rate=0.9, steps=80),
}
MODULES = {"fake on MinIO": "support.cellsparse_fake"}
STEPS = 18
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}


def request(backend, run_id, attempt):
    settings = trainer_pb2.TrainingSettings(
        steps=STEPS, batch_size=1, crop_size=32, checkpoint_every_steps=2, validate_every_steps=4, seed=3
    )
    settings.MergeFrom(BACKENDS[backend])
    return trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=attempt, dataset_id="ds-tiny", settings=settings)


@contextlib.contextmanager
def trainer(backend, folder, environment):
    """A server in a fresh process, its process id and a stub."""
    server = ServerProcess(
        ["-m", MODULES.get(backend, f"cellsparse_{backend}")], folder, folder, **ONE_THREAD, **environment
    )
    with server, open_channel(server.address) as channel:
        yield server.pid, trainer_pb2_grpc.TrainerServiceStub(channel)


def start(stub, backend, run_id, attempt):
    """Starts an attempt and returns its events as they come."""
    stub.StartTraining(request(backend, run_id, attempt), timeout=PATIENCE)
    asked = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=attempt)
    return (answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE))


def succeed(events):
    last = list(events)[-1]
    assert last.state == common_pb2.RUN_STATE_SUCCEEDED, last.message
    return last


def worker(pid):
    """The newest training process; the one before may still be on its way out."""
    children = psutil.Process(pid).children()
    return max(
        (child for child in children if WORKER in child.cmdline()),
        key=psutil.Process.create_time,
    )


def kill_in_upload(step, events, pid, store, run_id):
    """Kills the training process as soon as a file of a checkpoint from this step on is in the store."""
    process = worker(pid)
    end = time.monotonic() + PATIENCE
    prefix = keys.checkpoints_prefix(run_id)
    while time.monotonic() < end:
        names = [key.removeprefix(prefix).split("/") for key in store.list(prefix)]
        if any(int(name[0]) >= step for name in names if len(name) > 1):
            break
    process.kill()
    last = list(events)[-1]
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_LOST)


def card(store, run_id):
    return json.loads(store.get(keys.model_file(run_id, "model.json")))


@pytest.fixture(scope="module", params=trained_here(BACKENDS))
def place(request, tmp_path_factory):
    """Name of a backend, a folder for its server, the store and how another process opens it."""
    folder = tmp_path_factory.mktemp("trainer")
    with contextlib.ExitStack() as stack:
        settings = StoreSettings(store_url=f"file://{folder / 'store'}")
        environment = {}
        if request.param.endswith("MinIO"):
            minio = stack.enter_context(running_minio(tmp_path_factory.mktemp("minio")))
            minio.client().make_bucket("bucket")
            settings = minio.settings("s3://bucket/trainer")
            environment = store_environment(settings)
        else:
            environment = {"CELLSPARSE_STORE_URL": settings.store_url}
        store = open_store(settings)
        write_dataset(store)
        yield request.param, folder, store, environment


def test_killed_and_resumed_equals_uninterrupted(place):
    """Killed: the training process, with a checkpoint half in the store; later the server with all it started."""
    backend, folder, store, environment = place
    rng = np.random.default_rng(len(backend))
    first, second = int(rng.integers(3, 8)), int(rng.integers(10, 15))
    with PointerWatch(store, "run-killed") as watch:
        with trainer(backend, folder, environment) as (pid, stub):
            succeed(start(stub, backend, "run-whole", 1))
            kill_in_upload(first, start(stub, backend, "run-killed", 1), pid, store, "run-killed")
            events = start(stub, backend, "run-killed", 2)
            next(event for event in events if event.step >= second)
            child = worker(pid)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(grpc.RpcError):
                list(events)
            assert psutil.wait_procs([child], timeout=QUICK)[1] == []
        with trainer(backend, folder, environment) as (_, stub):
            events = list(start(stub, backend, "run-killed", 3))
    assert events[-1].state == common_pb2.RUN_STATE_SUCCEEDED, events[-1].message
    # It went on and did not begin anew. On a busy machine the killed one may have been at its last checkpoint already.
    assert all(event.step > first for event in events if event.losses)
    assert watch.looks > 50
    assert watch.faults == []
    whole, killed = card(store, "run-whole"), card(store, "run-killed")
    assert killed["files"] == whole["files"]  # SHA-256: the weights and thresholds, bit by bit, in all three backends
    for name in ("step", "validation", "preprocessing", "settings", "versions"):
        assert killed[name] == whole[name], name
