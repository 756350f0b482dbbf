"""What only a folder store must take care of."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import StorageError
from cellsparse_common.storage import FolderStore, folder
from cellsparse_common.storage.folder import ABANDONED_SECONDS, UNFINISHED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(root)


def test_nothing_is_made_before_the_first_write(store: FolderStore, root: Path) -> None:
    assert not store.exists("a")
    assert list(store.list("a/")) == []
    store.delete("a")
    assert not root.exists()


def test_delete_leaves_no_empty_folders(store: FolderStore, root: Path) -> None:
    store.put("a/b/c/d", b"")
    store.put("a/x", b"")
    store.delete("a/b/c/d")
    assert sorted(path.name for path in (root / "a").iterdir()) == ["x"]
    store.delete("a/x")
    assert sorted(path.name for path in root.iterdir()) == [UNFINISHED]


def test_no_unfinished_file_stays(store: FolderStore, root: Path, tmp_path: Path) -> None:
    store.put("a", b"1")
    store.put("a", b"2")
    store.fetch("a", tmp_path / "target")
    (root / "folder" / "deep").mkdir(parents=True)
    with pytest.raises(StorageError, match="Cannot write folder to the store: "):
        store.put("folder", b"1")
    with pytest.raises(StorageError, match="Cannot write a/b to the store: "):
        store.put("a/b", b"1")
    assert list((root / UNFINISHED).iterdir()) == []
    assert store.get("a") == b"2"


def test_others_can_read_the_files(store: FolderStore, root: Path) -> None:
    store.put("a", b"1")
    assert (root / "a").stat().st_mode & 0o777 == 0o644


def test_symbolic_links_lead_nowhere(store: FolderStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    store.put("a/b", b"1")
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    for key in ("link/secret", "link/new", "file"):
        for call in (store.get, store.exists, store.size, store.delete, lambda key: store.put(key, b"x")):
            with pytest.raises(StorageError, match="behind a symbolic link"):
                call(key)
    with pytest.raises(StorageError, match="behind a symbolic link"):
        store.list("link/")
    assert list(store.list("")) == ["a/b"]
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    store = FolderStore(tmp_path / "link")
    store.put("a/b", b"1")
    assert list(store.list("")) == ["a/b"]
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"1"


def test_foreign_files_are_not_listed(store: FolderStore, root: Path) -> None:
    store.put("a", b"1")
    (root / ".DS_Store").write_text("")
    (root / "ä").write_text("")
    os.mkfifo(root / "pipe")
    assert list(store.list("")) == ["a"]


def test_a_file_in_place_of_the_folder_is_said(root: Path, store: FolderStore) -> None:
    root.write_text("")
    for call in (store.get, store.exists, store.size, store.delete, lambda key: store.put(key, b"1")):
        with pytest.raises(StorageError, match=r"^The store is not a folder\.$"):
            call("a")


def calls(store: FolderStore, target: Path) -> list[Callable[[], object]]:
    return [
        store.check,
        lambda: store.get("a/b"),
        lambda: store.exists("a/b"),
        lambda: store.size("a/b"),
        lambda: store.fetch("a/b", target),
        lambda: list(store.list("")),
        lambda: store.delete("a/b"),
        lambda: store.put("a/c", b"2"),
    ]


def test_a_folder_that_is_away_is_a_failure_and_nothing_is_put_in_its_place(root: Path, tmp_path: Path) -> None:
    seen, read, told = FolderStore(root), FolderStore(root), FolderStore(root)
    seen.put("a/b", b"1")
    read.get("a/b")
    told.expect()
    root.rename(tmp_path / "away")
    for call in [call for store in (seen, read, told) for call in calls(store, tmp_path / "target")]:
        with pytest.raises(StorageError, match=r"^The folder of the store is missing; is its disk mounted\?$"):
            call()
    assert not root.exists()
    root.write_text("in its place")
    for call in calls(seen, tmp_path / "target"):
        with pytest.raises(StorageError, match="is not a folder"):
            call()
    root.unlink()
    (tmp_path / "away").rename(root)
    assert seen.get("a/b") == told.get("a/b") == b"1"
    told.put("a/c", b"2")
    assert list(seen.list("")) == ["a/b", "a/c"]


def test_a_folder_that_goes_away_while_an_object_is_written_stays_away(root: Path, tmp_path: Path, monkeypatch) -> None:
    store = FolderStore(root)
    store.put("a/b", b"1")
    monkeypatch.setattr(folder, "settle", lambda file: root.rename(tmp_path / "away"))
    with pytest.raises(StorageError, match="Cannot write c/d"):
        store.put("c/d", b"2")
    assert not root.exists()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from cellsparse_common.errors import StorageError
from cellsparse_common.storage import FolderStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    FolderStore(Path(sys.argv[1])).put("a/b", b"x" * 5000)
except StorageError as error:
    print(error)
"""


def test_a_full_disk_is_said_and_leaves_the_old_object(store: FolderStore, root: Path) -> None:
    store.put("a/b", b"old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, root], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.startswith("Cannot write a/b to the store: "), done.stderr
    assert store.get("a/b") == b"old"
    assert list((root / UNFINISHED).iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from cellsparse_common.storage import FolderStore, folder

folder.settle = lambda file: os.kill(os.getpid(), signal.SIGKILL)  # all bytes written, not renamed yet
FolderStore(Path(sys.argv[1])).put("a/b", b"new" * 100_000)
"""


def test_a_killed_writer_changes_nothing_and_is_swept_later(root: Path) -> None:
    FolderStore(root).put("a/b", b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, root], capture_output=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = (root / UNFINISHED).iterdir()
    store = FolderStore(root)
    assert store.get("a/b") == b"old"
    assert list(store.list("")) == ["a/b"]

    store.put("c", b"")
    assert left.exists(), "it may belong to a writer that is still at work"
    old = time.time() - ABANDONED_SECONDS - 1
    os.utime(left, (old, old))
    FolderStore(root).put("c", b"")
    assert not left.exists()


def test_memory_stays_flat_for_large_files(store: FolderStore, tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(150 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.put("large", source)
    store.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 150 * 2**20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50
