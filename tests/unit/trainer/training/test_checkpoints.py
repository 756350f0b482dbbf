import threading
import time

import pytest
from support.limits import PATIENCE

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import FailedPrecondition, StorageError
from cellsparse_common.storage import keys, open_store
from cellsparse_trainer.training.checkpoints import BEST, LATEST, Checkpoints


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


class Slow:
    """A store whose uploads wait until they may go on."""

    def __init__(self, store):
        self._store = store
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.put_keys = []

    def put(self, key, data):
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        self.put_keys.append(key)
        self._store.put(key, data)

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_a_slow_upload_blocks_nothing_and_loses_neither_the_best_nor_the_newest(store, tmp_path):
    slow = Slow(store)
    checkpoints = Checkpoints(slow, "run-1", tmp_path / "local")
    began = time.monotonic()
    checkpoints.write(1, None, {LATEST}, saver("one"))
    assert slow.begun.wait(PATIENCE)
    for step, score in ((2, 0.5), (3, None), (4, 0.7), (5, None), (6, None)):
        names = {LATEST} if score is None else {LATEST, BEST}
        checkpoints.write(step, score, names, saver(str(step)), best=score, stale=step)
    assert time.monotonic() - began < PATIENCE, "a write waited for the upload"
    assert slow.put_keys == []
    assert sorted(path.name for path in (tmp_path / "local").iterdir()) == ["000000001", "000000004", "000000006"]
    slow.go_on.set()
    checkpoints.wait()
    uploaded = [int(key.split("/")[-2]) for key in slow.put_keys if key.endswith("state")]
    assert uploaded == [1, 4, 6]
    assert (checkpoints.pointer(BEST).step, checkpoints.pointer(LATEST).step) == (4, 6)
    assert checkpoints.pointer(LATEST).stale == 6
    assert steps(store) == [4, 6]
    assert (checkpoints.fetch(checkpoints.pointer(BEST)) / "state").read_text() == "4"


def test_an_error_of_an_upload_reaches_the_next_write(store, tmp_path):
    class Broken(Slow):
        def put(self, key, data):
            raise StorageError("The disk is full.")

    checkpoints = Checkpoints(Broken(store), "run-1", tmp_path / "local")
    checkpoints.write(1, None, {LATEST}, saver("one"))
    while checkpoints._uploader is not None:
        time.sleep(0.01)
    with pytest.raises(StorageError, match="full"):
        checkpoints.write(2, None, {LATEST}, saver("two"))
    checkpoints.wait()


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
    assert [key.rpartition("/")[2] for key in full.keys] == ["a", "b"]
    assert checkpoints.pointer(LATEST) is None


def test_the_checkpoint_of_another_training_is_refused(store, tmp_path):
    first = Checkpoints(store, "run-1", tmp_path / "a", {"dataset": "ds-a", "seed": "1"})
    first.write(5, 0.5, {LATEST}, saver("five"))
    first.wait()
    same = Checkpoints(store, "run-1", tmp_path / "b", {"dataset": "ds-a", "seed": "1", "new": "x"})
    assert (same.fetch(same.pointer(LATEST)) / "state").read_text() == "five"
    for folder in ("a", "c"):  # with the files here, and without
        other = Checkpoints(store, "run-1", tmp_path / folder, {"dataset": "ds-b", "seed": "1"})
        with pytest.raises(FailedPrecondition, match=r"run-1 .* dataset was ds-a, now it is ds-b; start a new run"):
            other.fetch(other.pointer(LATEST))


def test_a_file_of_another_run_or_of_nobody_is_never_taken(store, tmp_path):
    """The reference goes on from whatever file has the name it is about to write."""
    foreign = Checkpoints(store, "run-2", tmp_path / "a")
    foreign.write(5, 0.5, {LATEST, BEST}, saver("foreign"))
    foreign.wait()
    assert Checkpoints(store, "run-1", tmp_path / "a").pointer(LATEST) is None
    own = Checkpoints(store, "run-1", tmp_path / "b")
    own.write(5, 0.5, {LATEST}, saver("own"))
    own.wait()
    left = Checkpoints(store, "run-1", tmp_path / "a")  # a folder that holds the other run's file of the same step
    assert (left.fetch(left.pointer(LATEST)) / "state").read_text() == "own"


def test_an_attempt_whose_place_another_has_taken_writes_nothing_more(store, tmp_path):
    """The writer is (attempt, lease): a later attempt, or the same one for an orchestrator that took over."""

    def checkpoints(writer):
        return Checkpoints(store, "run-1", tmp_path / str(writer), writer=writer)

    for number, (earlier, later) in enumerate([((1, 1), (2, 1)), ((2, 1), (2, 2)), ((2, 2), (3, 1))]):
        old, new = checkpoints(earlier), checkpoints(later)
        old.write(10 * number + 5, 0.5, {LATEST, BEST}, saver("old"))
        old.wait()
        new.write(10 * number + 6, 0.6, {LATEST}, saver("new"))
        new.wait()
        written = sorted(store.list("runs/run-1/"))
        for names in ({LATEST}, {LATEST, BEST}):
            old.write(10 * number + 7, 0.9, names, saver("late"))
            with pytest.raises(FailedPrecondition, match=f"Attempt {earlier[0]} of run run-1 is over: attempt"):
                old.wait()
        with pytest.raises(FailedPrecondition):
            old.confirm()
        assert sorted(store.list("runs/run-1/")) == written
        assert new.confirm()[LATEST].step == 10 * number + 6


def test_a_pointer_of_an_earlier_version_names_no_attempt(store, tmp_path):
    store.put(keys.checkpoint_pointer("run-1", LATEST), b'{"step": 1, "score": null, "files": {}}')
    assert Checkpoints(store, "run-1", tmp_path, writer=(1, 1)).confirm()[LATEST].step == 1
