import pytest

from cellsparse_common import keys
from cellsparse_common.errors import StorageError
from cellsparse_common.settings import StoreSettings
from cellsparse_common.storage import open_store
from cellsparse_trainer.checkpoints import BEST, LATEST, Checkpoints


@pytest.fixture
def store(tmp_path):
    return open_store(StoreSettings(store_url=f"file://{tmp_path}/store"))


def saver(text):
    return lambda folder: (folder / "state").write_text(text)


def steps(store):
    prefix = keys.checkpoints_prefix("run-1")
    names = [key.removeprefix(prefix) for key in store.list(prefix)]
    return sorted({int(name.split("/")[0]) for name in names if "/" in name})


def test_pointers_move_and_only_needed_checkpoints_stay(store, tmp_path):
    checkpoints = Checkpoints(store, "run-1", tmp_path / "local")
    checkpoints.write(5, 0.5, {LATEST, BEST}, saver("five"))
    checkpoints.write(10, 0.4, {LATEST}, saver("ten"))
    checkpoints.write(15, None, {LATEST}, saver("fifteen"))
    checkpoints.wait()
    assert checkpoints.pointer(LATEST).step == 15
    assert checkpoints.pointer(BEST).score == 0.5
    assert steps(store) == [5, 15]


def test_another_machine_fetches_what_was_written(store, tmp_path):
    first = Checkpoints(store, "run-1", tmp_path / "a")
    first.write(5, 0.5, {LATEST, BEST}, saver("five"))
    first.wait()
    second = Checkpoints(store, "run-1", tmp_path / "b")
    assert (second.fetch(second.pointer(LATEST)) / "state").read_text() == "five"


def test_nothing_there_is_none(store, tmp_path):
    assert Checkpoints(store, "run-1", tmp_path).pointer(LATEST) is None


def test_a_damaged_file_is_noticed(store, tmp_path):
    first = Checkpoints(store, "run-1", tmp_path / "a")
    first.write(5, 0.5, {LATEST}, saver("five"))
    first.wait()
    store.put(keys.checkpoint("run-1", 5, "state"), b"other")
    second = Checkpoints(store, "run-1", tmp_path / "b")
    with pytest.raises(StorageError, match="damaged"):
        second.fetch(second.pointer(LATEST))


def test_a_pointer_is_written_after_its_files_and_an_error_reaches_the_training(store, tmp_path):
    class Full:
        def __init__(self):
            self.keys = []

        def put(self, key, data):
            self.keys.append(key)
            if key.endswith("b"):
                raise StorageError("The disk is full.")

        def __getattr__(self, name):
            return getattr(store, name)

    full = Full()
    checkpoints = Checkpoints(full, "run-1", tmp_path / "a")

    def save(folder):
        for name in "ab":
            (folder / name).write_text(name)

    checkpoints.write(5, 0.5, {LATEST}, save)
    with pytest.raises(StorageError, match="full"):
        checkpoints.wait()
    assert len(full.keys) == 2
    assert checkpoints.pointer(LATEST) is None
