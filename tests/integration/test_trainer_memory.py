"""A training process' memory does not grow with the number of images."""

import numpy as np
import pytest
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, sparse

from cellsparse_common import datasets
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc

FEW, MANY, SIDE = 20, 400, 160
CACHE_MIB = 4
GROWTH_MIB = 16
"""The decoded images of the large dataset are five times as much."""


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store = open_store(StoreSettings(store_url=f"file://{folder}"))
    label = sparse(blobs(SIDE)[1])
    items = [
        datasets.put_item(
            store,
            name=f"item{number}",
            split=common_pb2.SPLIT_VAL if number == 0 else common_pb2.SPLIT_TRAIN,
            image=np.random.default_rng(number).integers(0, 255, label.shape, np.uint8),
            label=label,
        )
        for number in range(MANY)
    ]
    for name, count in (("few", FEW), ("many", MANY)):
        summary = dataset_pb2.Dataset(id=f"ds-{name}", name=name)
        datasets.write_manifest(store, dataset_pb2.DatasetManifest(dataset=summary, items=items[:count]))
    return folder


def test_peak_memory_with_400_images_is_that_with_20(store_folder, tmp_path):
    peaks = {}
    with (
        ServerProcess(
            ["-m", "support.cellsparse_fake"], store_folder, tmp_path, CELLSPARSE_CACHE_MIB=str(CACHE_MIB)
        ) as server,
        open_channel(server.address) as channel,
    ):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        for name in ("few", "many"):
            settings = trainer_pb2.TrainingSettings(unet={}, steps=2 * MANY, checkpoint_every_steps=1000)
            settings.validate_every_steps = 1000
            run = {"run_id": f"run-{name}", "attempt": 1}
            asked = trainer_pb2.StartTrainingRequest(dataset_id=f"ds-{name}", settings=settings, **run)
            stub.StartTraining(asked, timeout=PATIENCE)
            events = [
                one.event for one in stub.WatchTraining(trainer_pb2.WatchTrainingRequest(**run), timeout=PATIENCE)
            ]
            assert events[-1].state == common_pb2.RUN_STATE_SUCCEEDED, events[-1].message
            peaks[name] = max(event.peak_memory_mib for event in events)
    print(f"peak memory: {peaks['few']:.0f} MiB with {FEW} images, {peaks['many']:.0f} MiB with {MANY}")
    assert (MANY - FEW) * SIDE**2 * 8 / 2**20 > 4 * GROWTH_MIB
    assert peaks["many"] - peaks["few"] < GROWTH_MIB
