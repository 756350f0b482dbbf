"""Many runs asked for at once."""

import threading
import time
from dataclasses import replace

import pytest
from sqlalchemy import Engine, delete, event, update
from support.limits import PATIENCE

from cellsparse_common.datasets import write_manifest
from cellsparse_common.errors import AlreadyExists, CellsparseError, FailedPrecondition, InvalidArgument, NotFound
from cellsparse_common.storage.folder import FolderStore
from cellsparse_orchestrator.caller import Caller, acting
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.new_runs import NewRun
from cellsparse_orchestrator.runs.queries import RunFilter, Runs
from cellsparse_orchestrator.runs.trainable import TrainableDatasets
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, rules_pb2, trainer_pb2

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
            NewRun(run_id=new_id("run"), name="", request=request(priority=priority), request_key=None)
            for priority in priorities
        ]
        runs._insert([new])
        for one in new:
            found = runs.get(one.run.id)
            assert (one.run.queue_position, one.run.message) == (found.queue_position, found.message)
    places = [run.queue_position for run in runs.page(common_pb2.PageRequest(), RunFilter())[0]]
    assert sorted(places) == list(range(1, 9))


def test_a_new_run_is_told_as_it_is_read_afterwards(database, runs):
    for asked in (request(), request(name="mine", priority=3, max_attempts=7)):
        made = runs.add(new_id("run"), asked.name, asked)
        assert made == runs.get(made.id)
        assert made.name == asked.name or made.name == "unet tiny"


def test_a_group_holds_no_run_on_the_dataset_of_another_project(database, runs):
    mine = Caller(token_id="t", name="me", role=rules_pb2.ROLE_ANNOTATOR, project_id="project-1")
    with acting(mine):
        Datasets(database).add(dataset_pb2.Dataset(id="ds-2", name="mine", created_at=timestamp(now())))
        assert runs.add("run-1", "", request("ds-2")).name == "unet mine"
        with pytest.raises(NotFound, match="no dataset 'ds-1'"):
            runs.add("run-2", "", request())
    with acting(replace(mine, project_id="project-2")), pytest.raises(NotFound, match="no dataset 'ds-2'"):
        runs.add("run-3", "", request("ds-2"))
    kept, _ = runs.page(common_pb2.PageRequest(), RunFilter())
    assert [run.id for run in kept] == ["run-1"]


def test_the_manifest_of_a_good_dataset_is_read_once(tmp_path):
    store = FolderStore(tmp_path)
    trainable = TrainableDatasets(store)
    items = [dataset_pb2.DatasetItem(name="a", split=common_pb2.SPLIT_TRAIN, shape=[8, 8], axes="YX", cells=1)]
    for dataset_id, found in (("ds-good", items), ("ds-bare", [])):
        write_manifest(store, dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id=dataset_id), items=found))
    trainable.check("ds-good")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="no labelled cell"):
            trainable.check("ds-bare")
    assert ("ds-good" in trainable, "ds-bare" in trainable) == (True, False)


def batch(*asked, request_id="together"):
    return orchestrator_pb2.CreateRunsRequest(request_id=request_id, runs=asked)


def ids(count):
    return [new_id("run") for _ in range(count)]


def test_many_runs_are_queued_in_one_transaction_and_in_their_order(runs, commits):
    made = runs.add_together(ids(60), batch(*[request(name=f"n{number}") for number in range(60)]))
    assert len(commits) == 1
    assert [run.name for run in made] == [f"n{number}" for number in range(60)]
    assert [run.queue_position for run in made] == list(range(1, 61))
    assert made == runs.several([run.id for run in made])
    assert all(len(runs.events(run.id, 0)[0]) == 1 for run in made)


def test_if_one_of_many_runs_is_refused_there_is_none(runs):
    with pytest.raises(NotFound, match="ds-none"):
        runs.add_together(ids(3), batch(request(), request("ds-none"), request()))
    assert runs.page(common_pb2.PageRequest(), RunFilter()) == ([], "")
    assert runs.find_requests(batch(request(), request("ds-none"), request())) == []


def test_a_repeated_request_for_many_runs_makes_them_once(database, runs):
    asked = batch(request(), request(priority=2))
    made = runs.add_together(ids(2), asked)
    assert [run.id for run in runs.find_requests(asked)] == [run.id for run in made]
    assert [run.id for run in runs.add_together(ids(2), asked)] == [run.id for run in made]  # both came at once
    for other in (batch(request(), request()), batch(request()), batch(*[request()] * 3)):
        with pytest.raises(AlreadyExists, match=made[0].id):
            runs.find_requests(other)
    single = runs.add("run-single", "", request(request_id="together"))  # another kind of call
    with acting(Caller(token_id="t", name="me", role=rules_pb2.ROLE_ANNOTATOR, project_id="project-1")):
        assert runs.find_requests(asked) == []
    anonymous = batch(request(), request_id="")
    assert len({runs.add_together(ids(1), anonymous)[0].id for _ in range(2)}) == 2
    for run in (*made, single):
        runs.cancel(run.id)
    runs.remove(made[1].id)
    with pytest.raises(FailedPrecondition, match=f"made run {made[1].id}, which is deleted"):
        runs.find_requests(asked)
    with database.write() as session:
        session.execute(delete(RunRow).where(RunRow.id == made[1].id))
    with pytest.raises(FailedPrecondition, match="made 2 runs, 1 of which are deleted for good"):
        runs.find_requests(asked)


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
