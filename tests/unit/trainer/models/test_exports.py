"""Zips, chunks, and the service's Export around the fake backend."""

import hashlib
import io
import os
import time
import zipfile

import grpc
import numpy as np
import pytest
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc
from cellsparse_trainer.models.exports import CHUNK, read_messages, write_zip


def fill(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 100)
        os.utime(path, (time.time(), np.random.default_rng().integers(1e9)))
    return folder


def test_equal_files_give_equal_zips_whatever_their_times_and_order(tmp_path):
    names = ["b/deep/x.txt", "a.txt", "b/a.txt", "c"]
    write_zip(fill(tmp_path / "one", names), tmp_path / "one.zip")
    write_zip(fill(tmp_path / "two", names[::-1]), tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == sorted(names)
        assert archive.testzip() is None
        assert archive.read("b/a.txt") == b"b/a.txt" * 100
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("size", [0, 1, CHUNK, 2 * CHUNK + 5])
def test_a_file_is_a_header_and_chunks(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "model.bin").write_bytes(content)
    first, *rest = read_messages(tmp_path / "model.bin")
    assert (first.header.file_name, first.header.size) == ("model.bin", size)
    assert first.header.sha256 == hashlib.sha256(content).hexdigest()
    assert b"".join(message.chunk for message in rest) == content
    assert all(0 < len(message.chunk) <= CHUNK for message in rest)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    (work / "work" / "exports" / "left behind").mkdir(parents=True)
    return work


@pytest.fixture(scope="module")
def stub(tmp_path_factory, work):
    store = tmp_path_factory.mktemp("store")
    write_dataset(open_store(StoreSettings(store_url=f"file://{store}")))
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
    started = trainer_pb2.StartTrainingRequest(run_id="run-x", attempt=1, dataset_id="ds-tiny", settings=settings)
    with (
        ServerProcess(["-m", "support.cellsparse_fake"], store, work) as server,
        open_channel(server.address) as channel,
    ):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        stub.StartTraining(started, timeout=PATIENCE)
        list(stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="run-x", attempt=1), timeout=PATIENCE))
        yield stub


@pytest.fixture
def exported(stub):
    def export(name, model_id="run-x", timeout=PATIENCE):
        number = trainer_pb2.ExportFormat.Value(f"EXPORT_FORMAT_{name.upper()}")
        return stub.Export(trainer_pb2.ExportRequest(model_id=model_id, format=number), timeout=timeout)

    return export


def left(work):
    """What is in the folder of exports, once it is empty or a few seconds have passed."""
    end = time.monotonic() + PATIENCE
    while (found := list((work / "work" / "exports").iterdir())) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_an_export_arrives_whole_and_twice_the_same(exported, work):
    first, *rest = exported("native")
    content = b"".join(message.chunk for message in rest)
    assert first.header.file_name == "run-x.zip"
    assert (len(content), hashlib.sha256(content).hexdigest()) == (first.header.size, first.header.sha256)
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == [
        "cellsparse.json",
        "large.bin",
        "sub/threshold.json",
    ]
    assert next(exported("native")) == first
    assert left(work) == []


@pytest.mark.parametrize(
    ("name", "model_id", "status", "said"),
    [
        ("bioimageio", "run-x", grpc.StatusCode.INVALID_ARGUMENT, "native, torchscript, onnx"),
        ("unspecified", "run-x", grpc.StatusCode.INVALID_ARGUMENT, "EXPORT_FORMAT_NATIVE"),
        ("native", "run-y", grpc.StatusCode.NOT_FOUND, "'run-y' does not exist"),
        ("torchscript", "run-x", grpc.StatusCode.UNAVAILABLE, "process of the export died"),
    ],
)
def test_exports_that_fail_leave_nothing(exported, work, name, model_id, status, said):
    with pytest.raises(grpc.RpcError) as caught:
        list(exported(name, model_id))
    error = from_rpc_error(caught.value)
    assert error.status == status
    assert said in error.message
    assert left(work) == []


def test_an_export_that_takes_too_long_leaves_nothing(exported, work):
    with pytest.raises(grpc.RpcError) as caught:
        list(exported("onnx", timeout=3))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert left(work) == []
    assert list(exported("native"))


def test_a_client_that_goes_away_leaves_nothing(exported, work):
    stream = exported("native")
    next(stream)
    stream.cancel()
    assert left(work) == []
