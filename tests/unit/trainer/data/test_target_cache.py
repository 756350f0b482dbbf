"""What takes long to make is made once."""

import numpy as np
import pytest

from cellsparse_trainer.data import target_cache as module
from cellsparse_trainer.data.target_cache import DiskCache, find_disk_cache


class Maker:
    """Counts how often it makes."""

    def __init__(self, value=1.0, size=4):
        self.count, self.value, self.size = 0, value, size

    def __call__(self):
        self.count += 1
        return {"a": np.full(self.size, self.value, np.float32), "b": np.arange(3)}


def test_another_training_finds_what_one_has_made(tmp_path):
    make = Maker()
    first = DiskCache(tmp_path / "targets", 2**20).get("k", make)
    second = DiskCache(tmp_path / "targets", 2**20).get("k", make)
    assert make.count == 1
    for name in ("a", "b"):
        np.testing.assert_array_equal(first[name], second[name])
        assert first[name].dtype == second[name].dtype
    assert [path.name for path in (tmp_path / "targets").iterdir()] == ["k.npz"]


@pytest.mark.parametrize("damage", [b"", b"PK", b"not a file of arrays"])
def test_what_is_damaged_is_made_anew(tmp_path, damage):
    cache, make = DiskCache(tmp_path, 2**20), Maker()
    (tmp_path / "k.npz").write_bytes(damage)
    assert cache.get("k", make)["a"][0] == 1.0
    cache.get("k", make)
    assert make.count == 1


def test_what_cannot_be_kept_is_made_every_time(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache, make = DiskCache(tmp_path / "file" / "targets", 2**20), Maker()
    assert cache.get("k", make)["a"][0] == cache.get("k", make)["a"][0] == 1.0
    assert make.count == 2


def test_the_folder_does_not_grow_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TRIM_EVERY", 1)
    cache = DiskCache(tmp_path, 10_000)
    for number in range(20):
        cache.get(f"k{number}", Maker(size=1000))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000 + 5_000
    assert (tmp_path / "k19.npz").exists()


def test_there_is_none_unless_the_environment_names_one(tmp_path, monkeypatch):
    monkeypatch.delenv("CELLSPARSE_TARGET_DIR", raising=False)
    assert find_disk_cache() is None
    monkeypatch.setenv("CELLSPARSE_TARGET_DIR", str(tmp_path))
    assert isinstance(find_disk_cache(), DiskCache)
