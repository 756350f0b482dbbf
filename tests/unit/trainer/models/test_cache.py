"""Models at hand: which stay, and that nobody loses one that is in use."""

import os

import pytest

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.storage import open_store
from cellsparse_trainer.models.cache import CacheBounds, OpenModels, cached_models, kept_model, remove_leftovers
from cellsparse_trainer.models.store import publish_model

MODELS = [f"run-{number}" for number in range(4)]
SIZE = 2**20 // 2
"""Of a model's one file; its card takes some bytes more."""


@pytest.fixture
def store(tmp_path):
    found = open_store(StoreSettings(store_url=(tmp_path / "store").as_uri()))
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.bin").write_bytes(os.urandom(SIZE))
    for model in MODELS:
        publish_model(found, model, weights, {"backend": "unet"})
    return found


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def use(store, cache, model, bounds, at):
    """Use a model; its time is set, so that no clock decides."""
    with kept_model(store, model, cache, bounds) as (folder, card):
        assert card["backend"] == "unet"
        assert (folder / "model.bin").stat().st_size == SIZE
    os.utime(folder, (at, at))


def kept(cache):
    return {folder.name for folder, _ in cached_models(cache)}


def test_beyond_their_number_the_least_recently_used_go(store, cache):
    bounds = CacheBounds(models=2)
    for at, model in enumerate(["run-0", "run-1", "run-0", "run-2"]):
        use(store, cache, model, bounds, at)
    assert kept(cache) == {"run-0", "run-2"}
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []


def test_beyond_their_bytes_the_least_recently_used_go_and_the_newest_stays(store, cache):
    for at, model in enumerate(MODELS):
        use(store, cache, model, CacheBounds(mib=1), at)
    assert kept(cache) == {"run-3"}  # two of them and their cards are more than 1 MiB


def test_a_model_that_is_in_use_stays(store, cache):
    bounds = CacheBounds(models=1)
    with kept_model(store, "run-0", cache, bounds) as (folder, _):
        os.utime(folder, (0, 0))
        use(store, cache, "run-1", bounds, 1)
        assert (folder / "model.bin").is_file()
    use(store, cache, "run-2", bounds, 2)
    assert kept(cache) == {"run-2"}


def test_what_a_killed_process_left_is_removed(store, cache):
    use(store, cache, "run-0", CacheBounds(), 0)
    (cache / ".gone-1-run-7").mkdir()
    remove_leftovers(cache)
    assert [path.name for path in cache.iterdir()] == ["run-0"]


def test_open_models_are_bounded_by_number_and_by_bytes():
    models, opened = OpenModels(), []

    def get(key, size=1, **bounds):
        def open_it():
            opened.append(key)
            return key.upper(), size * 2**20

        assert models.get(key, CacheBounds(**bounds), open_it) == key.upper()

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key, open_models=2)
    assert opened == ["a", "b", "c", "b"]
    get("large", 10, open_mib=4)
    get("large", 10, open_mib=4)
    get("a", open_mib=4)
    assert opened[4:] == ["large", "a"]
    models.drop(lambda key: key == "a")
    get("a")
    assert opened[-2:] == ["a", "a"]
