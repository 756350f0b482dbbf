"""Ways to reach a real S3 server: TLS with an authority of one's own, virtual hosts, and what goes wrong on them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.limits import PATIENCE
from support.minio import DOMAIN, REGION, MinioServer, running_minio

from cellsparse_common.errors import StorageError
from cellsparse_common.storage import open_store

MIB = 2**20


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A server that speaks TLS, with one bucket."""
    with running_minio(tmp_path_factory.mktemp("minio-tls"), tls=True) as server:
        server.client().make_bucket("bucket")
        yield server


def test_a_ca_bundle_makes_the_server_trusted(minio: MinioServer) -> None:
    store = open_store(minio.settings("s3://bucket/tls"))
    data = bytes(7 * MIB)
    store.put("a/large", data)
    assert store.get("a/large") == data
    assert list(store.list("a/")) == ["a/large"]


def test_without_it_the_server_is_not_trusted(minio: MinioServer) -> None:
    store = open_store(minio.settings("s3://bucket", s3_ca_bundle=None))
    with pytest.raises(StorageError, match=f"TLS with {minio.endpoint} failed: .*CELLSPARSE_S3_CA_BUNDLE"):
        store.get("a")


def test_plain_http_to_a_tls_server_is_said(minio: MinioServer) -> None:
    store = open_store(minio.settings("s3://bucket", s3_secure=False))
    with pytest.raises(StorageError, match=f"Cannot read a: {minio.endpoint} answered "):
        store.get("a")


def test_wrong_keys_and_missing_buckets_are_said(minio: MinioServer) -> None:
    denied = open_store(minio.settings("s3://bucket", s3_secret_key="not-the-secret"))
    missing = open_store(minio.settings("s3://nothing-here"))
    for call in ("get", "exists", "size", "delete"):
        with pytest.raises(StorageError, match="Access to bucket bucket was denied"):
            getattr(denied, call)("a")
        with pytest.raises(StorageError, match="Bucket nothing-here does not exist"):
            getattr(missing, call)("a")
    with pytest.raises(StorageError, match="Bucket nothing-here does not exist"):
        missing.put("a", b"x" * (6 * MIB))
    with pytest.raises(StorageError, match="Bucket nothing-here does not exist"):
        list(missing.list(""))


def test_virtual_hosts(minio: MinioServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def to_loopback(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if host.endswith(DOMAIN) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", to_loopback)
    with running_minio(tmp_path_factory.mktemp("minio-hosts")) as server:
        server.client().make_bucket("bucket")
        port = server.endpoint.rpartition(":")[2]
        store = open_store(server.settings("s3://bucket/p", s3_endpoint=f"{DOMAIN}:{port}", s3_path_style=False))
        store.put("a", b"1")
        assert (store.get("a"), store.size("a"), list(store.list(""))) == (b"1", 1, ["a"])
        store.delete("a")
        assert not store.exists("a")
        assert open_store(server.settings("s3://bucket/p")).exists("a") is False
    assert f"bucket.{DOMAIN}" in asked


def test_the_region_is_signed_for(minio: MinioServer) -> None:
    open_store(minio.settings("s3://bucket")).put("region", REGION.encode())
    with pytest.raises(StorageError, match=f"region.*{REGION}"):
        open_store(minio.settings("s3://bucket", s3_region="us-east-1")).put("region", b"1")


def test_foreign_objects_in_the_bucket_are_not_listed(minio: MinioServer) -> None:
    import io

    client = minio.client()
    for name in ("mixed/folder-marker/", "mixed/ä", "mixed/.hidden", "elsewhere/x"):
        client.put_object("bucket", name, io.BytesIO(b""), 0)
    store = open_store(minio.settings("s3://bucket/mixed"))
    store.put("own", b"1")
    assert list(store.list("")) == ["own"]


def test_one_store_serves_many_threads(minio: MinioServer) -> None:
    store = open_store(minio.settings("s3://bucket/threads"))

    def work(number: int) -> bool:
        data = bytes([number]) * (number * 1000)
        store.put(f"k{number}", data)
        return store.get(f"k{number}") == data and store.size(f"k{number}") == len(data)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(64)))
    assert len(list(store.list("k"))) == 64


def test_a_server_that_goes_away_is_named(tmp_path: Path) -> None:
    with running_minio(tmp_path) as server:
        server.client().make_bucket("bucket")
        store = open_store(server.settings("s3://bucket"))
        store.put("a", b"1")
    with pytest.raises(StorageError, match=f"Cannot reach {server.endpoint}: "):
        store.get("a")


FLAT = """
import resource, sys
from pathlib import Path
from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.storage import open_store

source, target = Path(sys.argv[1]), Path(sys.argv[2])
store = open_store(load(StoreSettings))
store.put("warm", b"x" * 6 * 2**20)
store.fetch("warm", target)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("large", source)
store.fetch("large", target)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_stays_flat_for_large_files(minio: MinioServer, tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(300 * MIB)
    environment = minio.environment("s3://bucket/flat")
    command = [sys.executable, "-c", FLAT, source, tmp_path / "copy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy").stat().st_size == 300 * MIB
    assert float(done.stdout) < 100
