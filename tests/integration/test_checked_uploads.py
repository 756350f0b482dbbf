"""Files that go straight to where they belong, because the store checks their hash."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import urllib3
from support.cut_connection import CutConnection
from support.limits import PATIENCE
from support.minio import running_minio, store_environment
from support.orchestrator import Orchestrator, refused

import cellsparse
from cellsparse.uploads import Sender, Stopped, hashed
from cellsparse_common.errors import NotFound
from cellsparse_common.storage import keys, open_store, open_uploads
from cellsparse_proto.v1 import upload_pb2, upload_pb2_grpc

BUCKET = "checked"
URL_SECONDS = 3600
REFUSED = (400, 403)
PREFIX = f"s3://{BUCKET}/lab"


@pytest.fixture(scope="module")
def minio(tmp_path_factory):
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        server.client().make_bucket(BUCKET)
        yield server


@pytest.fixture
def store(minio):
    return open_store(minio.settings(PREFIX))


@pytest.fixture
def direct(minio):
    return open_uploads(minio.settings(PREFIX))


@pytest.fixture
def orchestrator(tmp_path, minio):
    environment = store_environment(minio.settings(PREFIX))
    with Orchestrator(
        tmp_path / "home", CELLSPARSE_LAUNCHER="static", CELLSPARSE_UPLOAD_URL_MIB="1", **environment
    ) as one:
        yield one


def content(seed):
    return np.random.default_rng(seed).bytes(2**20 + seed)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def put(target, data, headers=None):
    given = target.headers if headers is None else headers
    return urllib3.request("PUT", target.url, body=data, headers=dict(given), timeout=PATIENCE).status


def start(orchestrator, *contents):
    files = [upload_pb2.UploadFile(sha256=sha256(each), size=len(each)) for each in contents]
    stub = upload_pb2_grpc.UploadServiceStub(orchestrator.channel)
    return stub, list(stub.StartUploads(upload_pb2.StartUploadsRequest(files=files), timeout=PATIENCE).uploads)


def test_the_store_takes_nothing_but_what_was_signed_for(direct, store):
    right, wrong = content(1), content(2)
    key = keys.blob(sha256(right))
    target = direct.checked_url(sha256(right), "one", URL_SECONDS)
    assert put(target, wrong) == 400
    assert put(target, right[:-1]) == 400
    assert put(target, right, {}) in REFUSED
    for name in target.headers:  # neither left out nor changed
        assert put(target, right, {key: value for key, value in target.headers.items() if key != name}) in REFUSED
    assert put(target, right, {**target.headers, "x-amz-meta-cellsparse-sender": "two"}) in REFUSED
    assert not store.exists(key)
    assert not direct.has_checked(sha256(right), len(right), "one")
    assert put(target, right) == 200
    assert store.get(key) == right
    assert direct.has_checked(sha256(right), len(right), "one")


def test_only_who_has_sent_a_file_has_it(direct, store):
    data = content(3)
    store.put(keys.blob(sha256(data)), data)  # of somebody else, who sent it by the orchestrator
    assert not direct.has_checked(sha256(data), len(data), "one")
    assert put(direct.checked_url(sha256(data), "one", URL_SECONDS), data) == 200
    assert direct.has_checked(sha256(data), len(data), "one")
    assert not direct.has_checked(sha256(data), len(data) + 1, "one")
    assert not direct.has_checked(sha256(data), len(data), "two")
    assert put(direct.checked_url(sha256(data), "two", URL_SECONDS), data) == 200
    assert direct.has_checked(sha256(data), len(data), "two")


def test_files_count_when_they_are_asked_after(orchestrator, store):
    here, missing, later = content(4), content(5), content(6)
    stub, states = start(orchestrator, here, missing, later)
    assert [state.complete for state in states] == [False] * 3
    assert put(states[0].checked, here) == 200
    assert put(states[1].checked, here) == 400
    asked = upload_pb2.FinishUploadsRequest(sha256=[sha256(here), sha256(missing)])
    answer = stub.FinishUploads(asked, timeout=PATIENCE).uploads
    assert [(state.complete, state.offset) for state in answer] == [(True, len(here)), (False, 0)]
    present = upload_pb2.HasBlobsRequest(sha256=[sha256(here), sha256(missing)])
    assert list(stub.HasBlobs(present, timeout=PATIENCE).present) == [sha256(here)]
    # A client that was stopped before it asked does not send the file again.
    assert put(states[2].checked, later) == 200
    assert [state.complete for state in start(orchestrator, later, missing)[1]] == [True, False]
    assert not list(store.list(keys.INCOMING))
    error = refused(stub.FinishUploads, upload_pb2.FinishUploadsRequest(sha256=[sha256(b"unknown")]))
    assert isinstance(error, NotFound)
    assert "was not begun" in error.message


def test_the_client_sends_nothing_through_the_orchestrator(orchestrator, store):
    files = [content(seed) for seed in range(10, 20)]
    with CutConnection(orchestrator.address) as way, cellsparse.Client(way.address) as client:
        sender = Sender(client.connection)
        sender.send([hashed(each, "file") for each in files])
        assert way.sent < 100_000
        sent = way.sent
        sender.send([hashed(each, "file") for each in files])
        assert way.sent - sent < 10_000
    assert [store.get(keys.blob(sha256(each))) for each in files] == files


def test_files_that_only_the_store_knows_of_are_confirmed_or_sent_again(orchestrator, store):
    files = [content(seed) for seed in range(20, 23)]
    with cellsparse.Client(orchestrator.address) as client:
        sender = Sender(client.connection)
        gone = sender.put([hashed(each, "file") for each in files])
        assert [blob.sha256 for blob in gone] == [sha256(each) for each in files]
        store.delete(keys.blob(sha256(files[1])))  # as if the store had lost it
        sender.confirm(gone)
    assert [store.get(keys.blob(sha256(each))) for each in files] == files


def test_a_sender_that_was_stopped_sends_nothing_more(orchestrator, store):
    with cellsparse.Client(orchestrator.address) as client:
        sender = Sender(client.connection)
        sender.stop()
        for file in (b"through the orchestrator", content(30)):
            with pytest.raises(Stopped):
                sender.send([hashed(file, "file")])
            assert not store.exists(keys.blob(sha256(file)))


@contextmanager
def careless_server():
    """A server that takes any content, as stores did before they knew checksums."""
    took = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            took.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address, took
        server.shutdown()


def test_a_store_that_does_not_check_gets_no_checked_urls(minio):
    with careless_server() as ((host, port), took):
        settings = minio.settings(PREFIX).model_copy(update={"s3_endpoint": f"{host}:{port}"})
        direct = open_uploads(settings)
        assert [direct.checked_url(sha256(b"a"), "one", URL_SECONDS) for _ in range(3)] == [None] * 3
        assert len(took) == 1, "it is not asked each time"
