"""Uploads that stop in the middle hold files on disk and no memory, and end after a pause."""

import hashlib
import threading

import pytest
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, rss_mib, until

from cellsparse import Client
from cellsparse_common.errors import DeadlineExceeded, from_rpc_error
from cellsparse_proto.v1 import (
    common_pb2,
    dataset_pb2,
    dataset_pb2_grpc,
    orchestrator_pb2,
    project_pb2,
    project_pb2_grpc,
    trainer_pb2,
    upload_pb2,
    upload_pb2_grpc,
)

STREAMS, CHUNKS, CHUNK = 12, 96, bytes(2**20)
MOST_MIB = 512
"""That the server may grow by, while 1,152 MiB come: heaps of threads keep what was on its way, not what has come."""
IDLE_SECONDS = 2


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    """A server that waits for longer than the tests do."""
    with Orchestrator(tmp_path_factory.mktemp("home"), CELLSPARSE_UPLOAD_IDLE_SECONDS="86400") as running:
        running.healthy("unet")
        yield running


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    home = tmp_path_factory.mktemp("impatient")
    with Orchestrator(home, CELLSPARSE_UPLOAD_IDLE_SECONDS=str(IDLE_SECONDS)) as running:
        yield running


def dataset(orchestrator, number):
    make = dataset_pb2.CreateDatasetRequest
    file = {"item": "a", "split": common_pb2.SPLIT_TRAIN, "role": dataset_pb2.FILE_ROLE_IMAGE}
    begin = [
        make(header=dataset_pb2.DatasetHeader(name=f"half {number}")),
        make(file=dataset_pb2.FileHeader(**file)),
    ]
    return dataset_pb2_grpc.DatasetServiceStub(orchestrator.channel).CreateDataset, begin, make(chunk=CHUNK)


def image(orchestrator, number):
    make = project_pb2.AddImageRequest
    with Client(orchestrator.address) as client:
        project = client.create_project(f"half {number}")
    begin = [make(header=project_pb2.AddImageHeader(project_id=project.id, name="a.tif"))]
    return project_pb2_grpc.ProjectServiceStub(orchestrator.channel).AddImage, begin, make(chunk=CHUNK)


def model(orchestrator, number):
    make = orchestrator_pb2.ImportModelRequest
    settings = trainer_pb2.ImportSettings(backend="unet")
    begin = [make(header=orchestrator_pb2.ImportModelHeader(name=f"half {number}", settings=settings))]
    return orchestrator.runs.ImportModel, begin, make(chunk=CHUNK)


def file(orchestrator, number):
    make = upload_pb2.SendUploadsRequest
    stub = upload_pb2_grpc.UploadServiceStub(orchestrator.channel)
    name = hashlib.sha256(str(number).encode()).hexdigest()
    started = upload_pb2.UploadFile(sha256=name, size=(CHUNKS + 1) * len(CHUNK))
    stub.StartUploads(upload_pb2.StartUploadsRequest(files=[started]), timeout=PATIENCE)
    return stub.SendUploads, [make(file=upload_pb2.UploadBegin(sha256=name))], make(chunk=CHUNK)


@pytest.mark.parametrize("kind", [dataset, image, model, file])
def test_half_open_uploads_hold_no_memory(orchestrator, kind):
    sent = threading.Semaphore(0)
    over = threading.Event()

    def stream(begin, chunk):
        yield from begin
        for _ in range(CHUNKS):
            yield chunk
        sent.release()
        over.wait()

    before = rss_mib(orchestrator.pid)
    calls = []
    for number in range(STREAMS):
        method, begin, chunk = kind(orchestrator, number)
        calls.append(method.future(stream(begin, chunk)))
    try:
        for _ in calls:
            assert sent.acquire(timeout=PATIENCE), [call.exception() for call in calls if call.done()]
        # What is on its way takes memory for a moment.
        until(lambda: rss_mib(orchestrator.pid) - before < MOST_MIB)
        assert not any(call.done() for call in calls)
    finally:
        over.set()
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("kind", [dataset, image, model, file])
def test_a_half_open_upload_ends(impatient, kind):
    over = threading.Event()

    def stream(begin, chunk):
        yield from [*begin, chunk]
        over.wait()

    method, begin, chunk = kind(impatient, 0)
    call = method.future(stream(begin, chunk))
    try:
        error = from_rpc_error(call.exception(timeout=PATIENCE))
    finally:
        over.set()
    assert isinstance(error, DeadlineExceeded), error
    assert f"sent nothing for {IDLE_SECONDS} s" in error.message
