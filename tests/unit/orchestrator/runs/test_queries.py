"""Many runs asked for at once."""

import threading
import time

import pytest
from sqlalchemy import Engine, event, update
from support.limits import PATIENCE

from cellsparse_common.errors import AlreadyExists, CellsparseError, NotFound
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.queries import RunFilter, Runs, _RunToAdd
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, trainer_pb2

SETTINGS = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())


@pytest.fixture
def database(tmp_path):
    opened = Database(f"sqlite:///{tmp_path / 'a.db'}")
    Datasets(opened).add(dataset_pb2.Dataset(id="ds-1", name="tiny", created_at=timestamp(now())))
    yield opened
    opened.close()


@pytest.fixture
def runs(database):
    return Runs(database, Notifier())


@pytest.fixture
def commits():
    """One entry for every transaction that was committed."""
    seen = []

    def note(connection):
        seen.append(connection)

    event.listen(Engine, "commit", note)
    yield seen
    event.remove(Engine, "commit", note)


def ask_while_busy(database, runs, requests):
    """Ask for runs while somebody else writes; return what each call returned or raised."""
    found = [None] * len(requests)

    def ask(number):
        try:
            found[number] = runs.add(f"run-{number}", "", requests[number])
        except CellsparseError as error:
            found[number] = error

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(requests))]
    with database.write():
        for thread in threads:
            thread.start()
            time.sleep(0.02)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return found


def request(dataset_id="ds-1", **fields):
    return orchestrator_pb2.CreateRunRequest(dataset_id=dataset_id, settings=SETTINGS, **fields)


def test_those_that_wait_are_queued_in_one_transaction(database, runs, commits):
    made = ask_while_busy(database, runs, [request() for _ in range(8)])
    assert [run.id for run in made] == [f"run-{number}" for number in range(8)]
    assert [run.queue_position for run in made] == list(range(1, 9))
    assert [run.message for run in made[:3]] == [
        "waiting: next to start",
        "waiting: 1 run ahead",
        "waiting: 2 runs ahead",
    ]
    assert len(commits) <= 4  # the other writer, the first, all others; and perhaps one that came late
    assert all(len(runs.events(run.id, 0)[0]) == 1 for run in made)


def test_one_that_cannot_be_queued_stops_no_other(database, runs):
    asked = [
        request(),
        request("ds-none"),
        request(request_id="once"),
        request(request_id="once", priority=1),
        request(),
    ]
    made = ask_while_busy(database, runs, asked)
    assert isinstance(made[1], NotFound)
    assert isinstance(made[3], AlreadyExists)
    kept, _ = runs.page(common_pb2.PageRequest(), RunFilter())
    assert [run.id for run in kept] == ["run-4", "run-2", "run-0"]
    assert [run.queue_position for run in (made[0], made[2], made[4])] == [1, 2, 3]


def test_runs_queued_together_are_told_the_places_that_they_have(database, runs):
    for priorities in ([0, 5, 0], [0, 5, -1, 5, 0]):
        new = [
            _RunToAdd(run_id=new_id("run"), name="", request=request(priority=priority), request_key=None)
            for priority in priorities
        ]
        runs._insert(new)
        for one in new:
            found = runs.get(one.run.id)
            assert (one.run.queue_position, one.run.message) == (found.queue_position, found.message)
    places = [run.queue_position for run in runs.page(common_pb2.PageRequest(), RunFilter())[0]]
    assert sorted(places) == list(range(1, 9))


def test_runs_that_have_not_ended_are_counted_when_something_has_changed(database, runs):
    asked = orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=SETTINGS)
    assert runs.count_active() == 0
    for number in range(3):
        runs.add(f"run-{number}", "", asked)
        assert runs.count_active() == number + 1
    runs.cancel("run-1")
    assert runs.count_active() == 2
    with database.write() as session:  # of which nobody is notified
        session.execute(update(RunRow).where(RunRow.id == "run-2").values(state="FAILED"))
    assert runs.count_active() == 2
    runs.cancel("run-0")
    assert runs.count_active() == 0
