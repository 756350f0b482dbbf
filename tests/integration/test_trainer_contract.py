"""One contract for all trainers: the same calls against the real process of every backend, with tiny settings.

What ends a training is in `test_trainer_faults`, how it resumes in `test_trainer_kills`.
"""

import grpc
import numpy as np
import pytest
from support.backends import trained_here
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

BACKENDS = {
    "cellpose": trainer_pb2.TrainingSettings(cellpose=trainer_pb2.CellposeSettings(channels=[8, 256])),
    "cellpose_sam": trainer_pb2.TrainingSettings(
        cellpose_sam=trainer_pb2.CellposeSamSettings(encoder_depth=1, encoder_width=16, encoder_heads=2),
        batch_size=1,
        crop_size=256,
    ),
    "stardist": trainer_pb2.TrainingSettings(stardist=trainer_pb2.StardistSettings(n_rays=8, unet_depth=1)),
    "unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4)),
}


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_dataset(open_store(StoreSettings(store_url=f"file://{folder}")))
    return folder


@pytest.fixture(scope="module", params=trained_here(BACKENDS))
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def server(backend, store_folder, tmp_path_factory):
    work = tmp_path_factory.mktemp(backend)
    with ServerProcess(["-m", f"cellsparse_{backend}"], store_folder, work) as server:
        yield server


@pytest.fixture
def stub(server):
    with open_channel(server.address) as channel:
        yield trainer_pb2_grpc.TrainerServiceStub(channel)


def request(backend, run_id, attempt=1, **fields):
    settings = trainer_pb2.TrainingSettings(
        steps=4, batch_size=2, crop_size=32, checkpoint_every_steps=1, validate_every_steps=4
    )
    settings.MergeFrom(BACKENDS[backend])
    settings.MergeFrom(trainer_pb2.TrainingSettings(**fields))
    return trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=attempt, dataset_id="ds-tiny", settings=settings)


def watch(stub, run_id, attempt=1):
    asked = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=attempt)
    return [answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE)]


def trained(stub, backend, run_id):
    stub.StartTraining(request(backend, run_id), timeout=PATIENCE)
    last = watch(stub, run_id)[-1]
    assert last.state == common_pb2.RUN_STATE_SUCCEEDED, last.message
    return run_id


def test_describe(stub, backend):
    answer = stub.Describe(trainer_pb2.DescribeRequest(), timeout=PATIENCE)
    assert answer.backend == backend
    assert "cpu" in answer.devices
    assert "numpy" in answer.versions


def test_train_predict_evaluate(stub, backend):
    run_id = trained(stub, backend, f"run-{backend.replace('_', '-')}")
    events = watch(stub, run_id)
    assert all(np.isfinite(event.losses["loss"]) for event in events if event.losses)
    assert {event.checkpoint_step for event in events if event.HasField("checkpoint_step")} >= {1, 2, 3, 4}
    assert "score" in events[-1].validation
    for size in (64, 33, 150):
        image, _ = blobs(size=size)
        asked = trainer_pb2.PredictRequest(model_id=run_id, image=encode_tiff(image))
        answer = stub.Predict(asked, timeout=PATIENCE)
        label = decode_image(answer.label, max_pixels=2**20).array
        assert label.shape == image.shape
        assert set(np.unique(label)) == set(range(answer.cells + 1)) | ({0} if (label == 0).any() else set())
    asked = trainer_pb2.EvaluateRequest(model_id=run_id, dataset_id="ds-tiny", split=common_pb2.SPLIT_TEST)
    report = list(stub.Evaluate(asked, timeout=PATIENCE))[-1].report
    assert len(report.scores) == 9
    assert [item.item for item in report.items] == ["item2"]


def test_settings_that_cannot_be(stub, backend):
    with pytest.raises(grpc.RpcError) as caught:
        stub.StartTraining(request(backend, "run-bad", crop_size=100), timeout=PATIENCE)
    error = from_rpc_error(caught.value)
    assert error.status == grpc.StatusCode.INVALID_ARGUMENT
    assert "100" in error.message
