"""What ends a training, with the real process of every backend: no memory, a loss that is not finite, a missing GPU."""

import resource

import psutil
import pytest
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc
from cellsparse_trainer.contract import find_backend

WORKER = "cellsparse_trainer.training.worker"

BACKENDS = {
    "cellpose": trainer_pb2.TrainingSettings(cellpose=trainer_pb2.CellposeSettings()),
    "stardist": trainer_pb2.TrainingSettings(stardist=trainer_pb2.StardistSettings(n_rays=8, unet_depth=1)),
    "unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4)),
}
SPARE_MIB = 768
"""Enough for what is loaded late and for the stacks of threads, and far less than a batch of 64 crops of 512 takes."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(StoreSettings(store_url=f"file://{tmp_path_factory.mktemp('store')}"))
    write_dataset(store)
    return store


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def server(backend, store, tmp_path_factory):
    folder = store.url.removeprefix("file://")
    with ServerProcess(["-m", f"cellsparse_{backend}"], folder, tmp_path_factory.mktemp(backend)) as server:
        yield server


@pytest.fixture
def stub(server):
    with open_channel(server.address) as channel:
        yield trainer_pb2_grpc.TrainerServiceStub(channel)


def start(stub, backend, run_id, dataset="ds-tiny", **fields):
    """Starts an attempt and returns its events as they come."""
    settings = trainer_pb2.TrainingSettings(
        steps=30, batch_size=2, crop_size=32, checkpoint_every_steps=2, validate_every_steps=5
    )
    settings.MergeFrom(BACKENDS[backend])
    settings.MergeFrom(trainer_pb2.TrainingSettings(**fields))
    stub.StartTraining(
        trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=1, dataset_id=dataset, settings=settings),
        timeout=PATIENCE,
    )
    asked = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=1)
    return (answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE))


def worker(server):
    """The newest training process; the one before may still be on its way out."""
    children = psutil.Process(server.pid).children()
    return max(
        (child for child in children if WORKER in child.cmdline()),
        key=psutil.Process.create_time,
    )


def test_memory_that_runs_out_is_said_with_batch_and_crop(stub, backend, server):
    """Batches of 64 crops of 512 pixels do not fit into what the process may have beyond its libraries."""
    events = start(stub, backend, f"run-memory-{backend}", batch_size=64, crop_size=512, steps=3)
    next(event for event in events if event.log_lines)  # the framework is loaded
    process = worker(server)
    limit = process.memory_info().vms + SPARE_MIB * 2**20
    process.rlimit(resource.RLIMIT_AS, (limit, limit))
    last = list(events)[-1]
    found = (last.state, last.reason)
    assert found == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_OUT_OF_MEMORY), last.message
    assert "batch 64 and crop 512" in last.message


def test_a_gpu_that_is_missing_ends_the_run_before_any_image_is_read(stub, backend, store):
    """The dataset's images are gone: a run that looked at one would say that instead."""
    if len(stub.Describe(trainer_pb2.DescribeRequest(), timeout=PATIENCE).devices) > 1:
        pytest.skip("this machine has a GPU")
    manifest = write_dataset(store, "ds-gone", size=48)
    for item in manifest.items:
        store.delete(keys.blob(item.image_sha256))
    switch = find_backend(f"cellsparse_{backend}").light().Config.SWITCHES[0]
    asked = [({"device": trainer_pb2.DEVICE_CUDA}, "device is CUDA"), ({switch: True}, f"{switch} is true, but")]
    for number, (settings, said) in enumerate(asked):
        events = list(
            start(stub, backend, f"run-gpu-{backend}-{number}".replace("_", "-"), dataset="ds-gone", **settings)
        )
        assert (events[-1].state, events[-1].reason) == (
            common_pb2.RUN_STATE_FAILED,
            common_pb2.FAILURE_REASON_USER_ERROR,
        )
        assert said in events[-1].message
        assert "GPU" in events[-1].message
        assert events[-1].message.endswith(".")
        assert not any(event.step or event.losses for event in events)
