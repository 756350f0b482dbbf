"""A store that outlasts outages, and checkpoints that wait for it."""

import threading

import pytest
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import Damaged, NotFound, StorageError
from cellsparse_common.storage import FolderStore
from cellsparse_trainer.data import patient_store
from cellsparse_trainer.data.patient_store import Outage, PatientStore
from cellsparse_trainer.training.checkpoints import BEST, LATEST, Checkpoints


class Flaky:
    """A store that is away while a test says so."""

    def __init__(self, store):
        self._store = store
        self.away = True
        self.asked = 0
        self.put_keys = []

    def __getattr__(self, name):
        method = getattr(self._store, name)

        def call(*arguments):
            self.asked += 1
            if self.away:
                raise StorageError("Cannot reach it: connection refused.")
            if name == "put":
                self.put_keys.append(arguments[0])
            return method(*arguments)

        return call


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    monkeypatch.setattr(patient_store, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(patient_store, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(patient_store, "_LOOK_SECONDS", 0.01)
    made = Flaky(FolderStore(tmp_path / "store"))
    yield made
    made.away = False  # for the threads of a test that failed


@pytest.fixture
def said():
    return []


def test_an_outage_is_outlasted_and_said_once(flaky, said):
    store = PatientStore(flaky, Outage(said.append))
    threads = [threading.Thread(target=store.put, args=(f"a/{number}", b"1")) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: flaky.asked > 9)
    assert said == [
        "waiting for the store: Cannot reach it: connection refused. The training goes on as long as it can; "
        "its checkpoints are kept here until the store answers."
    ]
    flaky.away = False
    for thread in threads:
        thread.join(PATIENCE)
    assert [store.get(f"a/{number}") for number in range(3)] == [b"1"] * 3
    assert len(said) == 2
    assert said[1].startswith("The store answers again after ")


def test_an_answer_is_no_outage(flaky, said):
    flaky.away = False
    store = PatientStore(flaky, Outage(said.append))

    def damaged():
        raise Damaged("It has another hash.")

    with pytest.raises(NotFound):
        store.get("a/b")
    with pytest.raises(Damaged):
        Outage(said.append).outlast(damaged)
    assert not store.exists("a/b")
    assert said == []


@pytest.mark.parametrize("outage", [{"stopped": lambda: True}, {"longest": 0.0}])
def test_who_is_to_end_does_not_wait(flaky, said, outage):
    with pytest.raises(StorageError, match="refused"):
        PatientStore(flaky, Outage(said.append, **outage)).get("a/b")
    assert said == []


def saver(text):
    return lambda folder: (folder / "state").write_text(text)


def test_checkpoints_wait_here_and_are_uploaded_in_order(flaky, said, tmp_path):
    checkpoints = Checkpoints(PatientStore(flaky, Outage(said.append)), "run-1", tmp_path / "local")
    checkpoints.write(1, None, {LATEST}, saver("1"))
    until(lambda: said)
    for step, score in ((2, 0.5), (3, None), (4, 0.7), (5, None), (6, None)):
        names = {LATEST} if score is None else {LATEST, BEST}
        checkpoints.write(step, score, names, saver(str(step)), best=0.7)
    assert sorted(path.name for path in (tmp_path / "local").iterdir()) == ["000000001", "000000004", "000000006"]
    flaky.away = False
    checkpoints.wait()
    parts = [key.split("/")[-2:] for key in flaky.put_keys]
    assert [int(step) for step, name in parts if name == "state"] == [1, 4, 6]
    for place, (_, name) in enumerate(parts):
        if name in (LATEST, BEST):  # a pointer moves only to what is there
            assert any(before == "state" for _, before in parts[:place])
    assert (checkpoints.pointer(LATEST).step, checkpoints.pointer(BEST).step) == (6, 4)
    elsewhere = Checkpoints(flaky, "run-1", tmp_path / "elsewhere")
    assert (elsewhere.fetch(elsewhere.pointer(LATEST)) / "state").read_text() == "6"


def test_only_the_best_one_is_kept_where_there_is_no_room(flaky, said, tmp_path):
    checkpoints = Checkpoints(PatientStore(flaky, Outage(said.append)), "run-1", tmp_path / "local", keep_bytes=2000)
    for step in range(1, 5):
        checkpoints.write(step, None, {LATEST}, saver("x" * 1400))
        until(lambda: said)
    assert sorted(path.name for path in (tmp_path / "local").iterdir()) == ["000000001"]
    checkpoints.write(5, 0.5, {LATEST, BEST}, saver("x" * 1400))
    flaky.away = False
    checkpoints.wait()
    assert (checkpoints.pointer(LATEST).step, checkpoints.pointer(BEST).step) == (5, 5)


def test_a_training_that_is_stopped_in_an_outage_resumes_from_what_was_uploaded(flaky, said, tmp_path):
    stop = threading.Event()
    flaky.away = False
    checkpoints = Checkpoints(PatientStore(flaky, Outage(said.append, stop.is_set)), "run-1", tmp_path / "local")
    checkpoints.write(5, None, {LATEST}, saver("5"))
    checkpoints.wait()
    flaky.away = True
    checkpoints.write(10, None, {LATEST}, saver("10"))
    until(lambda: said)
    stop.set()
    with pytest.raises(StorageError, match="refused"):
        checkpoints.wait()
    flaky.away = False
    assert checkpoints.pointer(LATEST).step == 5
