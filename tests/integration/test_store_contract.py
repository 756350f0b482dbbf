"""The promises of `ObjectStore`, asked of both stores: a folder, and a bucket in a real MinIO server."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode
from support.minio import MinioServer, running_minio, store_environment

from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.datasets import put_blob
from cellsparse_common.errors import Damaged, InvalidArgument, NotFound, StorageError
from cellsparse_common.storage import ObjectStore, keys, open_store
from cellsparse_common.storage.blobs import blob_size, keep_blob, read_blob

MIB = 2**20


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        server.client().make_bucket("contract")
        yield server


@pytest.fixture(params=["folder", "s3", "s3 with prefix"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    """Settings of a store with nothing in it."""
    if request.param == "folder":
        return load(StoreSettings, store_url=(tmp_path / "made later" / "store").as_uri())
    server: MinioServer = request.getfixturevalue("minio")
    if request.param == "s3 with prefix":
        return server.settings(f"s3://contract/{tmp_path.name.replace('[', '-').replace(']', '-')}/deep")
    client = server.client()
    bucket = f"b{time.monotonic_ns()}"
    client.make_bucket(bucket)
    return server.settings(f"s3://{bucket}")


@pytest.fixture
def store(settings: StoreSettings) -> ObjectStore:
    return open_store(settings)


def test_an_empty_store_has_nothing(store: ObjectStore, tmp_path: Path) -> None:
    assert list(store.list("")) == []
    assert not store.exists("a")
    with pytest.raises(NotFound, match="There is no object a/b in"):
        store.get("a/b")
    with pytest.raises(NotFound):
        store.size("a/b")
    with pytest.raises(NotFound):
        store.fetch("a/b", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    store.delete("a/b")


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 17 * MIB + 3])
def test_bytes_come_back_from_memory_and_from_files(store: ObjectStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    store.put("from/memory", data)
    store.put("from/file", source)
    for key in ("from/memory", "from/file"):
        assert store.get(key) == data
        assert store.size(key) == size
        assert store.exists(key)
        store.fetch(key, tmp_path / "new folder" / "target")
        assert (tmp_path / "new folder" / "target").read_bytes() == data
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["target"]


@pytest.mark.parametrize("size", [0, 1000, 3 * MIB + 5])
def test_a_rotten_blob_is_never_read_and_is_mended_by_the_same_bytes(
    store: ObjectStore, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    sha256 = put_blob(store, data)
    key, target = keys.blob(sha256), tmp_path / "target"
    store.fetch(key, target)
    assert store.get(key) == b"".join(store.read(key)) == target.read_bytes() == data
    target.unlink()
    rotten = b"x" if not data else data[:-1] + bytes([data[-1] ^ 1])
    source = tmp_path / "again"
    source.write_bytes(data)
    for mend in (
        lambda: keep_blob(store, sha256, data),
        lambda: keep_blob(store, sha256, source),
        lambda: put_blob(store, data),
    ):
        store.put(key, rotten)
        for read in (
            lambda: store.get(key),
            lambda: list(store.read(key)),
            lambda: store.fetch(key, target),
            lambda: read_blob(store, sha256),
        ):
            with pytest.raises(Damaged, match=f"Blob {sha256} is rotten .* upload the same") as caught:
                read()
            assert caught.value.status is StatusCode.DATA_LOSS
        assert not target.exists()
        mend()
        assert read_blob(store, sha256) == data
    store.delete(key)
    with pytest.raises(Damaged, match=f"Blob {sha256} is missing from the store: upload"):
        read_blob(store, sha256)
    with pytest.raises(Damaged, match="missing"):
        blob_size(store, sha256)
    other = f"runs/r1/{sha256}"  # the same name elsewhere is no blob
    store.put(other, rotten)
    assert b"".join(store.read(other)) == rotten


def test_put_replaces(store: ObjectStore) -> None:
    store.put("a/b", b"long and old")
    store.put("a/b", b"new")
    assert store.get("a/b") == b"new"
    assert store.size("a/b") == 3
    assert list(store.list("")) == ["a/b"]


def test_delete_is_idempotent_and_leaves_the_others(store: ObjectStore) -> None:
    store.put("a/b/c", b"1")
    store.put("a/d", b"2")
    for _ in range(2):
        store.delete("a/b/c")
        assert not store.exists("a/b/c")
        assert list(store.list("")) == ["a/d"]
    store.put("a/b/c", b"again")
    assert store.get("a/b/c") == b"again"


def test_a_folder_of_keys_is_no_object(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/b/c", b"1")
    for key in ("a", "a/b", "a/b/c/d"):
        assert not store.exists(key)
        with pytest.raises(NotFound):
            store.get(key)
        with pytest.raises(NotFound):
            store.fetch(key, tmp_path / "target")
        with pytest.raises(NotFound):
            store.size(key)
        store.delete(key)
    assert store.get("a/b/c") == b"1"


KEYS = [
    "a-b/x", "a.b", "a/b", "a/b.json", "a/bc/d", "a/b c/e=f", "a0", "ab", "A", "Z/z", "_x", "runs/r1/spec.json",
    "runs/r10/spec.json", "runs/r1/checkpoints/00000002/w", "runs/r1/checkpoints/00000010/w",
    "runs/r1/checkpoints/LATEST", "x+y",
]  # fmt: skip


PREFIXES = [
    "", "a", "a/", "a/b", "a/b ", "a/bc", "a/bc/", "a.", "runs/r1",
    "runs/r1/", "runs/r1/checkpoints/0", "x+", "none", "A/",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_list_is_sorted_and_prefixes_are_plain_text(store: ObjectStore, prefix: str) -> None:
    for key in reversed(KEYS):
        store.put(key, key.encode())
    assert list(store.list(prefix)) == sorted(key for key in KEYS if key.startswith(prefix))


def test_list_streams_more_than_one_page(store: ObjectStore) -> None:
    names = [f"items/{number:05d}" for number in range(1, 1203)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), names))
    listing = store.list("items/")
    assert [next(listing) for _ in range(3)] == names[:3]
    assert list(listing) == names[3:]


@pytest.mark.parametrize(
    "key", ["", "/a", "../a", "a/../b", "a//b", "a/", ".a", "a\\b", "a\0b", "ä", "a/.cellsparse-x"]
)
def test_odd_keys_are_rejected_everywhere(store: ObjectStore, tmp_path: Path, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.fetch(key, tmp_path / "target"),
        lambda: store.exists(key),
        lambda: store.size(key),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument):
            call()
    if not key.endswith("/") and key:
        with pytest.raises(InvalidArgument):
            store.list(key)
    assert list(store.list("")) == []


def test_a_missing_source_is_the_callers_fault(store: ObjectStore, tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidArgument, match="cannot be read"):
            store.put("a", source)
    assert not store.exists("a")


def test_a_target_that_cannot_be_written_is_said(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a", b"1")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write .*file/target: "):
        store.fetch("a", tmp_path / "file" / "target")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageError, match="Cannot write"):
        store.fetch("a", folder)
    assert list(folder.parent.glob(".cellsparse-*")) == []


def test_the_url_opens_the_same_store(settings: StoreSettings) -> None:
    first = open_store(settings)
    first.put("a", b"1")
    again = open_store(settings.model_copy(update={"store_url": first.url}))
    assert again.get("a") == b"1"
    assert again.url == first.url == settings.store_url


def test_readers_see_whole_objects_while_writers_race(settings: StoreSettings) -> None:
    versions = [bytes([letter]) * (300_000 + letter) for letter in b"ABCD"]
    writers = open_store(settings)
    writers.put("racy/object", versions[0])
    end = threading.Event()

    def write(data: bytes) -> None:
        for _ in range(15):
            writers.put("racy/object", data)

    def read(_: int) -> int:
        own, seen = open_store(settings), 0
        while not end.is_set():
            assert own.get("racy/object") in versions
            seen += 1
        return seen

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, number) for number in range(2)]
        list(pool.map(write, versions))
        end.set()
        assert all(reader.result() > 0 for reader in readers)
    assert list(writers.list("racy/")) == ["racy/object"]


def test_put_and_delete_race_in_one_folder(store: ObjectStore) -> None:
    def churn(number: int) -> None:
        for _ in range(40):
            store.put(f"shared/deep/{number}", b"x")
            store.delete(f"shared/deep/{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert list(store.list("")) == []


WRITER = """
import sys
from pathlib import Path
from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.storage import open_store

store = open_store(load(StoreSettings))
print("ready", flush=True)
while True:
    store.put("new/object", Path(sys.argv[1]))
    store.delete("new/object")
    store.put("old/object", Path(sys.argv[1]))
"""

KILL_AFTER_SECONDS = (0.003, 0.02, 0.05, 0.12)


def test_a_writer_killed_in_the_middle_leaves_no_part(settings: StoreSettings, tmp_path: Path) -> None:
    """A real process is killed at several moments; what can be read afterwards is always whole."""
    store = open_store(settings)
    small, large = b"small", os.urandom(20 * MIB)
    store.put("old/object", small)
    source = tmp_path / "large"
    source.write_bytes(large)
    for wait in KILL_AFTER_SECONDS:
        with _writer(settings, source) as process:
            time.sleep(wait)
            process.kill()
        assert store.get("old/object") in (small, large)
        if store.exists("new/object"):
            assert store.get("new/object") == large
        assert set(store.list("")) <= {"old/object", "new/object"}


def _writer(settings: StoreSettings, source: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **store_environment(settings)}
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(source)], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process
