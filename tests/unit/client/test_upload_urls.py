"""Files that go to URLs of a store over connections that are kept."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.limits import PATIENCE

from cellsparse import upload_urls
from cellsparse.upload_urls import StoreConnections
from cellsparse.uploads import Stopped


@contextmanager
def store(*, status=200, drops=False):
    """A store that notes what comes, and over how many connections; `drops`: it closes them without a word."""
    took, connections = [], []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            connections.append(self.client_address)

        def do_PUT(self):
            took.append((self.path, self.headers["x-a"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.close_connection = drops

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/blob?signature=1", took, connections
        server.shutdown()


@pytest.fixture
def stores(monkeypatch):
    monkeypatch.setattr(upload_urls, "_KEPT_SECONDS", PATIENCE)  # however slow this machine is
    made = StoreConnections()
    yield made
    made.close()


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("drops", "connections"), [(False, 1), (True, 3)])
def test_a_connection_is_kept_and_one_that_the_store_closed_is_replaced(stores, tmp_path, on_disk, drops, connections):
    content = bytes(range(256)) * 4
    file = tmp_path / "file"
    file.write_bytes(content)
    with store(drops=drops) as (url, took, opened):
        for begin in (0, 100, 200):
            assert stores.put(url, file if on_disk else content, 300, begin, {"x-a": "b"})
    assert took == [("/blob?signature=1", "b", content[begin : begin + 300]) for begin in (0, 100, 200)]
    assert len(opened) == connections


@pytest.mark.parametrize("status", [307, 400, 403, 503])
def test_a_store_that_refuses_has_not_taken_the_file(stores, status):
    with store(status=status) as (url, took, _):
        assert not stores.put(url, b"abc", 3)
    assert len(took) == 1


def test_what_cannot_be_reached_or_is_no_http_is_not_used(stores, tmp_path):
    with store() as (url, _, _):
        pass
    assert not stores.put(url, b"abc", 3)
    assert not stores.put("ftp://127.0.0.1/a", b"abc", 3)
    assert not stores.put(url, tmp_path / "missing", 3)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_file_that_is_stopped_ends_before_its_end_and_its_connection_too(stores, tmp_path, on_disk):
    content = bytes(2**21)
    file = tmp_path / "file"
    file.write_bytes(content)
    calls = []

    def go_on():
        calls.append(1)
        if len(calls) == 3:
            raise Stopped("stopped")

    with store() as (url, took, opened):
        with pytest.raises(Stopped):
            stores.put(url, file if on_disk else content, len(content), go_on=go_on)
        assert stores.put(url, b"abc", 3)
        assert len(opened) == 2
    assert ("/blob?signature=1", None, b"abc") in took
    assert all(len(data) < len(content) for *_, data in took)
