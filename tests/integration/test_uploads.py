"""Uploads that break off go on: the connection is cut, the orchestrator killed, and nothing that came is sent again."""

import hashlib

import numpy as np
import pytest
import tifffile
import urllib3
from support.cut_connection import CutConnection
from support.limits import PATIENCE
from support.minio import running_minio, store_environment
from support.orchestrator import Orchestrator, refused, tiny_items, until

import cellsparse
from cellsparse import uploads
from cellsparse_common.errors import CellsparseError, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, upload_pb2, upload_pb2_grpc

BUCKET = "uploads"
SIDE = 800


@pytest.fixture(scope="module")
def minio(tmp_path_factory):
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        server.client().make_bucket(BUCKET)
        yield server


@pytest.fixture
def minio_store(minio):
    return {"CELLSPARSE_LAUNCHER": "static", **store_environment(minio.settings(f"s3://{BUCKET}"))}


@pytest.fixture(params=["folder", "minio"])
def environment(request):
    """Where the store is."""
    return {"CELLSPARSE_LAUNCHER": "static"} if request.param == "folder" else request.getfixturevalue("minio_store")


@pytest.fixture
def items(tmp_path):
    """Images of noise (640 kB each) and label images in files."""
    made = []
    random = np.random.default_rng(0)
    for number in range(4):
        label = np.full((SIDE, SIDE), -1, np.int32)
        label[10:20, 10:20], label[40:50, 40 : 50 + number] = 1, 0
        paths = [tmp_path / f"{number}-{kind}.tif" for kind in ("image", "label")]
        tifffile.imwrite(paths[0], random.integers(0, 255, (SIDE, SIDE), dtype=np.uint8))
        tifffile.imwrite(paths[1], label, compression="zlib")
        made.append((f"item{number}", "train", *paths))
    return made


def stub(orchestrator):
    return upload_pb2_grpc.UploadServiceStub(orchestrator.channel)


def start(orchestrator, *contents):
    files = [upload_pb2.UploadFile(sha256=sha256(each), size=len(each)) for each in contents]
    return list(stub(orchestrator).StartUploads(upload_pb2.StartUploadsRequest(files=files), timeout=PATIENCE).uploads)


def send(content, offset=0, *, name=None):
    make = upload_pb2.SendUploadsRequest
    yield make(file=upload_pb2.UploadBegin(sha256=name or sha256(content), offset=offset))
    yield make(chunk=content[offset:])


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def same(client, one, other):
    return list(client.dataset_items(one.id)) == list(client.dataset_items(other.id))


def test_an_upload_that_was_cut_and_whose_server_was_killed_goes_on(tmp_path, environment, items, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setattr(uploads, "TRIES", 1)
    with (
        Orchestrator(home, **environment) as orchestrator,
        CutConnection(orchestrator.address) as way,
        cellsparse.Client(way.address) as client,
    ):
        contents = [path.read_bytes() for item in items for path in item[2:]]

        def cut():
            """Return how many bytes the server has after a cut. It may have read none of those that were sent."""
            way.limit = way.sent + 1_500_000
            with pytest.raises(CellsparseError):
                client.create_dataset("cut", items)
            return sum(each.offset for each in start(orchestrator, *contents))

        kept = until(cut)
        orchestrator.kill()
    total = sum(map(len, contents))
    assert 0 < kept < total
    with (
        Orchestrator(home, **environment) as orchestrator,
        CutConnection(orchestrator.address) as way,
        cellsparse.Client(way.address) as client,
    ):
        made = client.create_dataset("cut", items)
        assert way.sent < total - kept + 100_000  # calls have some bytes of their own
        sent = way.sent
        again = client.create_dataset("again", items)
        assert way.sent - sent < 100_000
        read = [(name, 1, image.read_bytes(), label.read_bytes()) for name, _, image, label in items]
        whole = client.create_dataset("undisturbed", read)
        streamed = orchestrator.upload(read)
        assert same(client, made, again)
        assert same(client, made, whole)
        assert same(client, made, streamed)
        assert made.id != again.id


def test_a_client_goes_on_by_itself(tmp_path, items):
    with (
        Orchestrator(tmp_path / "home", CELLSPARSE_LAUNCHER="static") as orchestrator,
        CutConnection(orchestrator.address) as way,
        cellsparse.Client(way.address) as client,
    ):
        way.limit = 1_000_000
        made = client.create_dataset("cut", items)
        assert way.limit is None
        assert made.items == len(items)


def test_a_repeated_request_makes_one_dataset(tmp_path, items):
    with (
        Orchestrator(tmp_path / "home", CELLSPARSE_LAUNCHER="static") as orchestrator,
        cellsparse.Client(orchestrator.address) as client,
    ):
        first = client.create_dataset("one", items)
        request = dataset_pb2.CreateDatasetFromBlobsRequest(
            request_id="abc", header=dataset_pb2.DatasetHeader(name="one")
        )
        for name, _, image, label in items:
            for role, path in ((1, image), (2, label)):
                file = dataset_pb2.FileHeader(item=name, split=1, role=role)
                request.files.add(file=file, sha256=sha256(path.read_bytes()))
        made = [orchestrator.datasets.CreateDatasetFromBlobs(request, timeout=PATIENCE) for _ in range(2)]
        assert made[0] == made[1]
        assert same(client, made[0].dataset, first)
        assert len(list(client.datasets())) == 2
        request.request_id, request.check_only = "", True
        assert not orchestrator.datasets.CreateDatasetFromBlobs(request, timeout=PATIENCE).HasField("dataset")
        assert len(list(client.datasets())) == 2
        rotten = orchestrator.store / keys.blob(request.files[0].sha256)
        rotten.write_bytes(b"rotten")
        missing = request.files[3].sha256 = sha256(b"missing")
        error = refused(orchestrator.datasets.CreateDatasetFromBlobs, request)
        assert isinstance(error, FailedPrecondition)
        assert error.violations == [(missing, "The label file of item 'item1' is missing or damaged.")]
        healed = client.create_dataset("healed", items)
        assert same(client, healed, first)


def test_files_as_we_write_them_are_kept_as_they_are(tmp_path, environment):
    contents = list(tiny_items())
    with (
        Orchestrator(tmp_path / "home", **environment) as orchestrator,
        cellsparse.Client(orchestrator.address) as client,
    ):
        made = client.create_dataset("tiny", contents)
        assert [(each.image_sha256, each.label_sha256) for each in client.dataset_items(made.id)] == [
            (sha256(image), sha256(label)) for _, _, image, label in contents
        ]
        assert same(client, made, orchestrator.upload(contents))
        assert client.dataset_item(made.id, "item0").image.shape == (64, 64)


def test_bad_uploads_are_refused_in_a_sentence(tmp_path):
    content = b"0123456789" * 100
    with Orchestrator(tmp_path / "home", CELLSPARSE_LAUNCHER="static", CELLSPARSE_MAX_MODEL_MIB="1") as orchestrator:
        sends = stub(orchestrator).SendUploads
        error = refused(sends, send(content))
        assert isinstance(error, NotFound)
        assert "was not begun" in error.message
        (state,) = start(orchestrator, content)
        assert (state.offset, state.complete, state.url) == (0, False, "")
        error = refused(sends, send(content, 10))
        assert "begin at 10, but 0 bytes are there: go on at 0" in error.message
        error = refused(sends, send(b"x" * 1000, name=sha256(content)))
        assert isinstance(error, InvalidArgument)
        assert f"What came as file {sha256(content)} has the SHA-256 {sha256(b'x' * 1000)}" in error.message
        error = refused(sends, send(content + b"more", name=sha256(content)))
        assert "More than the 1000 bytes came" in error.message
        assert sends(send(content[:300], name=sha256(content)), timeout=PATIENCE).complete == 0
        (state,) = start(orchestrator, content)
        assert state.offset == 300
        assert sends(send(content, 300), timeout=PATIENCE).complete == 1
        asked = upload_pb2.HasBlobsRequest(sha256=[sha256(b"other"), sha256(content)])
        assert list(stub(orchestrator).HasBlobs(asked, timeout=PATIENCE).present) == [sha256(content)]
        huge = upload_pb2.UploadFile(sha256=sha256(b"huge"), size=2**40)
        error = refused(stub(orchestrator).StartUploads, upload_pb2.StartUploadsRequest(files=[huge]))
        assert isinstance(error, ResourceExhausted)
        assert "has 1048576.0 MiB; allowed: 1024." in error.message
        model = orchestrator_pb2.ImportModelFromBlobRequest(sha256=sha256(b"none"))
        model.header.name, model.header.settings.backend = "m", "unet"
        error = refused(orchestrator.runs.ImportModelFromBlob, model)
        assert "The model file (SHA-256" in error.message


def test_large_files_go_straight_to_the_store(tmp_path, minio, minio_store, items):
    total = sum(path.stat().st_size for item in items for path in item[2:])
    store = open_store(minio.settings(f"s3://{BUCKET}"))
    big, other = np.random.default_rng(1).bytes(2**21), b"x" * 2**21
    with (
        Orchestrator(tmp_path / "home", **minio_store, CELLSPARSE_UPLOAD_URL_MIB="1") as orchestrator,
        CutConnection(orchestrator.address) as way,
        cellsparse.Client(way.address) as client,
    ):
        (state,) = start(orchestrator, big)
        asked = upload_pb2.FinishUploadRequest(sha256=sha256(big))
        error = refused(stub(orchestrator).FinishUpload, asked)
        assert "has not come to its URL" in error.message
        put(state.url, other)
        error = refused(stub(orchestrator).FinishUpload, asked)
        assert isinstance(error, InvalidArgument)
        assert f"has SHA-256 {sha256(other)}" in error.message
        assert not list(store.list(keys.INCOMING))
        assert not store.exists(keys.blob(sha256(other)))
        put(state.url, big)
        assert stub(orchestrator).FinishUpload(asked, timeout=PATIENCE).upload.complete
        assert store.get(keys.blob(sha256(big))) == big
        assert not list(store.list(keys.INCOMING))
        assert [each.complete for each in start(orchestrator, big)] == [True]

        pixels = np.random.default_rng(2).integers(0, 255, (1500, 1500), dtype=np.uint8)
        label = np.zeros(pixels.shape, np.uint8)
        label[:9, :9] = 1
        made = client.create_dataset("large", [("a", "train", pixels, label)])
        assert way.sent < 500_000 < total
    away = {"CELLSPARSE_UPLOAD_URL_MIB": "1", "CELLSPARSE_UPLOAD_URL_ENDPOINT": "127.0.0.1:1"}
    with (
        Orchestrator(tmp_path / "other", **minio_store, **away) as orchestrator,
        cellsparse.Client(orchestrator.address) as client,
    ):
        assert client.create_dataset("large", [("a", "train", pixels, label)]).items == made.items


PART = 5 * 2**20
IN_PARTS = {"CELLSPARSE_UPLOAD_URL_MIB": "1", "CELLSPARSE_UPLOAD_PART_MIB": "5"}


def parts_begun(minio):
    """Objects of which parts have come; the server answers for one key at a time."""
    client = minio.client()
    names = [keys.incoming("", sha256(each)) for each in (content_of(1), content_of(2), content_of(3))]
    return [name for name in names if client._list_multipart_uploads(BUCKET, prefix=name).uploads]


def content_of(seed):
    return np.random.default_rng(seed).bytes(2 * PART + 1000)


def test_a_large_file_goes_to_the_store_in_parts(tmp_path, minio, minio_store):
    content = content_of(1)
    store = open_store(minio.settings(f"s3://{BUCKET}"))
    asked = upload_pb2.FinishUploadRequest(sha256=sha256(content))
    with Orchestrator(tmp_path / "home", **minio_store, **IN_PARTS) as orchestrator:
        (state,) = start(orchestrator, content)
        assert (state.url, state.parts.part_bytes, state.parts.received) == ("", PART, 0)
        assert [part.number for part in state.parts.missing] == [1, 2, 3]
        put(state.parts.missing[1].url, content[PART : 2 * PART])
        put(state.parts.missing[2].url, b"too short")
    with Orchestrator(tmp_path / "home", **minio_store, **IN_PARTS) as orchestrator:
        error = refused(stub(orchestrator).FinishUpload, asked)
        assert isinstance(error, FailedPrecondition)
        assert f"Of 3 parts of file {sha256(content)} these have not come: 1, 3;" in error.message
        (state,) = start(orchestrator, content)
        assert state.parts.received == PART
        assert [part.number for part in state.parts.missing] == [1, 3]
        put(state.parts.missing[0].url, content[:PART])
        put(state.parts.missing[1].url, content[2 * PART :])
        (state,) = start(orchestrator, content)
        assert (state.parts.received, len(state.parts.missing)) == (len(content), 0)
        for _ in range(2):  # the first answer may get lost
            assert stub(orchestrator).FinishUpload(asked, timeout=PATIENCE).upload.complete
        assert store.get(keys.blob(sha256(content))) == content
        assert not list(store.list(keys.INCOMING))
        assert not parts_begun(minio)


def test_a_cut_upload_goes_on_with_the_part_that_is_missing(tmp_path, minio, minio_store, monkeypatch):
    monkeypatch.setattr(uploads, "FIRST_PAUSE", 0.0)
    content = content_of(2)
    path = tmp_path / "large"
    path.write_bytes(content)
    with (
        CutConnection(minio.endpoint) as way,
        Orchestrator(
            tmp_path / "home", **minio_store, **IN_PARTS, CELLSPARSE_UPLOAD_URL_ENDPOINT=way.address
        ) as orchestrator,
        CutConnection(orchestrator.address) as direct,
        cellsparse.Client(direct.address) as client,
    ):
        way.limit = PART + PART // 2
        uploads.Sender(client.connection).send([uploads.hashed(path, "model file")])
        assert way.limit is None
        assert way.sent < len(content) + PART
        assert direct.sent < PART
        assert [each.complete for each in start(orchestrator, content)] == [True]


def test_parts_of_forgotten_uploads_are_removed(tmp_path, minio, minio_store):
    content, sent = content_of(3), content_of(1)
    with Orchestrator(tmp_path / "home", **minio_store, **IN_PARTS) as orchestrator:
        states = start(orchestrator, content, sent)
        if not states[1].complete:  # whoever cannot reach the store sends it here
            put(states[1].parts.missing[0].url, sent[:PART])
            stub(orchestrator).SendUploads(send_in_chunks(sent), timeout=PATIENCE)
        put(states[0].parts.missing[0].url, content[:PART])
        assert parts_begun(minio) == [keys.incoming("", sha256(content))]
    with Orchestrator(
        tmp_path / "home", **minio_store, **IN_PARTS, CELLSPARSE_UPLOAD_KEEP_HOURS="0.000001"
    ) as orchestrator:
        start(orchestrator, b"another")
        assert not parts_begun(minio)


def send_in_chunks(content):
    make = upload_pb2.SendUploadsRequest
    yield make(file=upload_pb2.UploadBegin(sha256=sha256(content)))
    for begin in range(0, len(content), 2**20):
        yield make(chunk=content[begin : begin + 2**20])


def put(url, content):
    assert urllib3.request("PUT", url, body=content, timeout=PATIENCE).status == 200
