import hashlib
import os
from pathlib import Path

import pytest

from cellsparse_common.errors import StorageError
from cellsparse_common.files import replace_file, replacing, sha256_of


def test_text_and_bytes_replace_a_file(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "file"
    replace_file(target, "größer")
    assert target.read_bytes() == "größer".encode()
    replace_file(target, b"2")
    assert target.read_bytes() == b"2"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write_half() -> None:
        with replacing(target) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write .*/file/target: Not a directory\.|File exists"):
        replace_file(tmp_path / "file" / "target", "x")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_reads_the_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_sha256_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(2**20 + 1)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
