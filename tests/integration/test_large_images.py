"""Images that do not fit into one message: their files and results go in chunks, through a real orchestrator."""

import grpc
import numpy as np
import pytest
from support.limits import PATIENCE
from support.model_imports import import_messages
from support.orchestrator import Orchestrator, refused
from support.tiny_dataset import blobs

import cellsparse
from cellsparse import models
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

IMAGE, _ = blobs(size=120, seed=9)
make = orchestrator_pb2.PredictFileRequest


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home"), CELLSPARSE_MAX_IMAGE_FILE_MIB="1") as running:
        running.healthy("unet")
        yield running


@pytest.fixture(scope="module")
def model(orchestrator):
    return orchestrator.runs.ImportModel(import_messages(b"0.25", "unet"), timeout=PATIENCE).model.id


def stream(model, data, *, size=None, **options):
    yield make(header=trainer_pb2.PredictRequest(model_id=model, **options))
    for start in range(0, len(data), 1000):
        yield make(chunk=data[start : start + 1000])
    if size != 0:
        yield make(end=orchestrator_pb2.PredictFileEnd(size=size or len(data)))


def left_over(orchestrator):
    return list(FolderStore(orchestrator.store).list(keys.TRANSFERS))


@pytest.mark.parametrize("format_", ["tiff", "geojson", "coco"])
def test_a_streamed_result_is_that_of_one_message(orchestrator, model, monkeypatch, tmp_path, format_):
    path = tmp_path / "image.tif"
    path.write_bytes(encode_tiff(IMAGE))
    with cellsparse.Client(orchestrator.address) as client:
        expected = client.predict(model, path, format=format_)
        monkeypatch.setattr(models, "IN_ONE_MESSAGE", 100)
        calls = []
        exchange = client.connection.exchange
        monkeypatch.setattr(client.connection, "exchange", lambda *a, **k: calls.append(a[0]) or exchange(*a, **k))
        np.testing.assert_array_equal(client.predict(model, path, format=format_), expected)
        np.testing.assert_array_equal(client.predict(model, IMAGE, format=format_), expected)
    assert calls == ["PredictFile"] * 2
    assert left_over(orchestrator) == []


def test_streams_that_are_not_whole_are_refused(orchestrator, model):
    data = encode_tiff(IMAGE)
    for messages, sentence in (
        (stream(model, data, size=0), "stopped without its end message"),
        (stream(model, data, size=len(data) + 1), f"but {len(data)} came"),
        (iter([make(chunk=b"x")]), "The header comes once"),
        (stream(model, data, image=b"x"), "The header holds an image"),
        (stream(model, bytes(2**20 + 1)), "larger than 1 MiB"),
        (stream(model, b"no image"), "is not a TIFF"),
        (stream("no-model", data), "no-model"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(orchestrator.runs.PredictFile(messages, timeout=PATIENCE))
        assert sentence in caught.value.details()
        assert caught.value.code() != grpc.StatusCode.INTERNAL
    assert left_over(orchestrator) == []


def test_one_message_needs_an_image_and_no_transfer(orchestrator, model):
    asked = trainer_pb2.PredictRequest(model_id=model)
    assert "image is missing." in refused(orchestrator.runs.Predict, asked).message
    asked = trainer_pb2.PredictRequest(model_id=model, transfer_id="transfer-1")
    assert "between services" in refused(orchestrator.runs.Predict, asked).message
