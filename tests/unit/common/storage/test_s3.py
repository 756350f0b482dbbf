"""How an S3 store behaves when the server or the way to it misbehaves; servers here are a few lines each."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.limits import PATIENCE, QUICK

from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.errors import FailedPrecondition, NotFound, StorageError
from cellsparse_common.storage import ObjectStore, open_checked_store, open_store, s3, s3_connection
from cellsparse_common.storage.s3_credentials import S3Credentials

BODY = bytes(range(256)) * 4096

Answer = Callable[[BaseHTTPRequestHandler, int], None]


def store_at(endpoint: str) -> ObjectStore:
    keys = {"s3_access_key": "key", "s3_secret_key": "hunter2"}
    return open_store(load(StoreSettings, store_url="s3://bucket/p", s3_endpoint=endpoint, s3_secure=False, **keys))


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[ObjectStore, list[str]]]:
    """A store whose server answers with a function of the request and its number; and the requests it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self, len(seen))
            self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield store_at(f"127.0.0.1:{server.server_port}"), seen
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said the server</Message></Error>".encode()


def calls(store: ObjectStore, tmp_path: Path) -> list[Callable[[], object]]:
    return [
        lambda: store.put("a", b"1"),
        lambda: store.get("a"),
        lambda: store.fetch("a", tmp_path / "target"),
        lambda: store.exists("a"),
        lambda: store.size("a"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
    ]


def test_a_server_that_is_away_is_named_within_seconds(tmp_path: Path) -> None:
    store = store_at("127.0.0.1:1")
    started = time.monotonic()
    for call in calls(store, tmp_path):
        with pytest.raises(StorageError, match=r"^Cannot reach 127\.0\.0\.1:1: .*Connection refused\.$"):
            call()
    assert time.monotonic() - started < QUICK
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_none_is_named() -> None:
    with pytest.raises(StorageError, match=r"Cannot reach nowhere.invalid:9000: "):
        store_at("nowhere.invalid:9000").get("a")


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_connection, "READ_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StorageError, match=f"Cannot reach {endpoint}: no answer in time"):
            store_at(endpoint).get("a")


def test_a_busy_server_is_asked_again() -> None:
    with serving(lambda handler, n: reply(handler, 503, error("SlowDown")) if n < 3 else reply(handler, 200, BODY)) as (
        store,
        seen,
    ):
        assert store.get("a") == BODY
    assert seen == ["GET /bucket/p/a"] * 3


def test_a_server_that_stays_busy_is_given_up() -> None:
    with serving(lambda handler, n: reply(handler, 503, error("SlowDown"))) as (store, seen):  # noqa: SIM117
        with pytest.raises(StorageError, match="answered SlowDown: said the server"):
            store.put("a", b"1")
    assert 2 <= len(seen) <= 6


def test_a_download_that_breaks_is_started_again(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        reply(handler, 200, BODY[:70_000] if number < 3 else BODY, length=len(BODY))

    with serving(answer) as (store, seen):
        store.fetch("a", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == BODY
    assert len(seen) == 3


def test_a_download_that_keeps_breaking_leaves_nothing(tmp_path: Path) -> None:
    with serving(lambda handler, n: reply(handler, 200, BODY[:70_000], length=len(BODY))) as (store, seen):
        with pytest.raises(StorageError, match="Cannot reach 127"):
            store.fetch("a", tmp_path / "target")
        with pytest.raises(StorageError):
            store.get("a")
    assert list(tmp_path.iterdir()) == []
    assert len(seen) == 6


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_denied_access_says_what_to_check(tmp_path: Path, code: str) -> None:
    with serving(lambda handler, n: reply(handler, 403, error(code))) as (store, _):
        for call in calls(store, tmp_path):
            with pytest.raises(StorageError, match=r"Access to bucket bucket was denied .*CELLSPARSE_S3_") as caught:
                call()
            assert "hunter2" not in caught.value.message


def test_a_missing_bucket_is_told_from_a_missing_key(tmp_path: Path) -> None:
    with serving(lambda handler, n: reply(handler, 404, error("NoSuchBucket"))) as (store, _):
        for call in calls(store, tmp_path):
            with pytest.raises(StorageError, match=r"Bucket bucket does not exist at 127.*; make it first"):
                call()


def test_whoever_may_not_see_the_bucket_may_ask_for_keys() -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        reply(handler, 403 if handler.path.rstrip("/") == "/bucket" else 404)

    with serving(answer) as (store, _):
        assert not store.exists("a")
        with pytest.raises(NotFound):
            store.size("a")


def test_a_bucket_is_looked_for_once() -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        reply(handler, 200 if handler.path.rstrip("/") == "/bucket" else 404)

    with serving(answer) as (store, seen):
        assert not any(store.exists(f"a{number}") for number in range(5))
    assert len(seen) == 6


def test_a_web_server_is_no_s3_server(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        handler.send_response(404)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(b"<html>" + b"x" * 5000)

    with serving(answer) as (store, _):
        for call in (lambda: store.get("a"), lambda: store.put("a", b"1"), lambda: list(store.list(""))):
            with pytest.raises(StorageError, match=r"Cannot .* answered ") as caught:
                call()
            assert len(caught.value.message) < 500
    with serving(lambda handler, n: reply(handler, 200, b"not xml")) as (store, _):  # noqa: SIM117
        with pytest.raises(StorageError, match="Cannot list s3://bucket/p: "):
            list(store.list(""))


LARGE = bytes(6 * 2**20)


def parts_server(fail: Callable[[str, int], Callable[[BaseHTTPRequestHandler], None] | None]) -> Answer:
    """An S3 server for one upload in parts that answers a kind of request with a failure, as `fail` says."""
    counts: dict[str, int] = {}

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        kind = f"{handler.command} {'uploads' if 'uploads' in handler.path else ''}".strip()
        counts[kind] = counts.get(kind, 0) + 1
        failure = fail(kind, counts[kind])
        if failure is not None:
            failure(handler)
        elif kind == "POST uploads":
            reply(handler, 200, b"<Result><Bucket>bucket</Bucket><Key>p/a</Key><UploadId>u1</UploadId></Result>")
        elif kind == "POST":
            reply(handler, 200, b"<Result><Bucket>bucket</Bucket><Key>p/a</Key><ETag>e</ETag></Result>")
        else:
            handler.send_response(204 if kind == "DELETE" else 200)
            handler.send_header("ETag", "e")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    return answer


def breaks(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("kind", ["POST uploads", "POST", "PUT"])
@pytest.mark.parametrize(
    "failure",
    [lambda handler: reply(handler, 503, error("SlowDown")), lambda handler: reply(handler, 500), breaks],
    ids=["503", "500", "reset"],
)
def test_every_step_of_an_upload_in_parts_is_tried_again(kind: str, failure: Callable[..., None]) -> None:
    with serving(parts_server(lambda asked, n: failure if asked == kind and n == 1 else None)) as (store, seen):
        store.put("a", LARGE)
    assert sum(entry.startswith("POST") for entry in seen) == 2 + kind.startswith("POST")


@pytest.mark.parametrize("code", ["InternalError", "NoSuchUpload"])
def test_an_upload_whose_completion_failed_late_is_begun_again(code: str) -> None:
    status = 200 if code == "InternalError" else 404
    fail = parts_server(
        lambda asked, n: (lambda h: reply(h, status, error(code))) if (asked, n) == ("POST", 1) else None
    )
    with serving(fail) as (store, seen):
        store.put("a", LARGE)
    assert sum("uploads" in entry for entry in seen) == 2


def test_an_upload_that_keeps_failing_is_given_up() -> None:
    fail = parts_server(
        lambda asked, n: (lambda h: reply(h, 503, error("SlowDown"))) if asked == "POST uploads" else None
    )
    with serving(fail) as (store, seen):  # noqa: SIM117
        with pytest.raises(StorageError, match="SlowDown"):
            store.put("a", LARGE)
    assert len(seen) <= 5 * (1 + len(s3.PUT_PAUSES))


def test_a_missing_bucket_is_told_at_start(caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda handler, n: reply(handler, 404)) as (store, _):  # noqa: SIM117
        with pytest.raises(FailedPrecondition, match=r"Bucket bucket does not exist at 127.*; make it first"):
            store.check()
    for status in (200, 403):
        with serving(lambda handler, n, status=status: reply(handler, status)) as (store, _):
            store.check()
    keys = {"s3_access_key": "key", "s3_secret_key": "hunter2", "s3_secure": False}
    open_checked_store(load(StoreSettings, store_url="s3://bucket/p", s3_endpoint="127.0.0.1:1", **keys))
    assert "the store does not answer yet: Cannot reach 127.0.0.1:1" in caplog.text


def test_a_missing_object_may_be_hidden_from_restricted_credentials(tmp_path: Path) -> None:
    """AWS says "denied" of a missing object to who may not list the whole bucket."""
    file = tmp_path / "credentials"
    S3Credentials(access_key="k", secret_key="s", session_token="t", expire_time=time.time() + 600).write(file)
    listing = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{}</ListBucketResult>"
    entry = "<Contents><Key>p/{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        if "list-type=2" not in handler.path or "foreign" in handler.path:
            reply(handler, 403, error("AccessDenied"))
        else:
            reply(handler, 200, listing.format(entry.format("mine/there") + entry.format("mine/gone2")).encode())

    with serving(answer) as (store, _):
        with pytest.raises(StorageError, match="denied"):  # its keys open the whole bucket: they are wrong
            store.get("mine/gone")
        restricted = open_store(
            load(
                StoreSettings,
                store_url="s3://bucket/p",
                s3_endpoint=store._endpoint,  # type: ignore[attr-defined]
                s3_secure=False,
                s3_credentials_file=file,
            )
        )
        assert not restricted.exists("mine/gone")
        with pytest.raises(NotFound):
            restricted.get("mine/gone")
        for key in ("mine/there", "foreign/gone"):
            with pytest.raises(StorageError, match="denied"):
                restricted.get(key)
