"""What happens when several transactions want the same: defined, on both kinds of databases."""

import threading
from dataclasses import replace

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import AlreadyExists, CellsparseError, FailedPrecondition, NotFound
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.decisions import Action, AttemptOutcome, Decision
from cellsparse_orchestrator.runs.queries import RunFilter, Runs
from cellsparse_orchestrator.runs.transitions import AttemptEnd, RunTransitions
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, trainer_pb2

SETTINGS = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
THREADS = 8


class Tables:
    def __init__(self, url):
        self.database = Database(url)
        notifier = Notifier()
        self.datasets = Datasets(self.database)
        self.runs, self.transitions = Runs(self.database, notifier), RunTransitions(self.database, notifier)

    def add_dataset(self, dataset_id):
        self.datasets.add(dataset_pb2.Dataset(id=dataset_id, name="tiny", created_at=timestamp(now())))

    def add_run(self, dataset_id="ds-1", **fields):
        request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset_id, settings=SETTINGS, **fields)
        return self.runs.add(new_id("run"), "a run", request)

    def begin(self, run_id):
        return next(iter(self.transitions.begin_attempts([run_id])), None)

    def sequences(self, run_id):
        return [event.sequence for event in self.runs.events(run_id, 0, 1000)[0]]


@pytest.fixture
def tables(database_url):
    made = Tables(database_url)
    made.add_dataset("ds-1")
    yield made
    made.database.close()


def at_once(*works):
    """Run all works at the same time; return what each returned or raised."""
    results = [None] * len(works)
    gate = threading.Barrier(len(works))

    def run(number, work):
        gate.wait(PATIENCE)
        try:
            results[number] = work()
        except CellsparseError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return results


def test_one_request_makes_one_run(tables):
    made = at_once(*[lambda: tables.add_run(request_id="once")] * THREADS)
    assert len({run.id for run in made}) == 1
    assert len(tables.runs.page(common_pb2.PageRequest(), RunFilter())[0]) == 1


def test_one_request_for_many_runs_makes_them_once(tables):
    asked = orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=SETTINGS)
    together = orchestrator_pb2.CreateRunsRequest(request_id="once", runs=[asked] * 3)
    made = at_once(*[lambda: tables.runs.add_together([new_id("run") for _ in range(3)], together)] * THREADS)
    assert len({tuple(run.id for run in runs) for runs in made}) == 1
    kept, _ = tables.runs.page(common_pb2.PageRequest(), RunFilter())
    assert sorted(run.queue_position for run in kept) == [1, 2, 3]


def test_one_request_id_with_two_contents_makes_one_run(tables):
    tables.add_dataset("ds-2")
    made = at_once(*[lambda name=name: tables.add_run(name, request_id="once") for name in ("ds-1", "ds-2")])
    assert sorted(type(one).__name__ for one in made) == ["AlreadyExists", "Run"]
    with pytest.raises(AlreadyExists):
        tables.add_run(request_id="once", priority=1)


def test_an_attempt_begins_once(tables):
    run = tables.add_run()
    begun = at_once(*[lambda: tables.begin(run.id)] * THREADS)
    assert [attempt.number for attempt in begun if attempt is not None] == [1]
    assert tables.sequences(run.id) == [1, 2]


def test_a_cancelled_run_does_not_begin_and_a_begun_one_is_asked_to_end(tables):
    for _ in range(10):
        run = tables.add_run()
        begun, cancelled = at_once(lambda run=run: tables.begin(run.id), lambda run=run: tables.runs.cancel(run.id))
        if begun is None:
            assert cancelled.state == tables.runs.get(run.id).state == run_states.CANCELLED
        else:
            assert tables.runs.get(run.id).state == run_states.STARTING
            assert [found.cancel_requested for found in tables.transitions.active() if found.run_id == run.id] == [True]
            outcome = AttemptOutcome(state=run_states.CANCELLED)
            decision = Decision(action=Action.END, state=run_states.CANCELLED, message="Cancelled.")
            end = AttemptEnd(run_id=run.id, number=1, outcome=outcome, decision=decision)
            tables.transitions.end_attempts([end])
        assert tables.sequences(run.id) == list(range(1, len(tables.sequences(run.id)) + 1))


def test_runs_that_begin_together_begin_in_the_order_of_the_queue(tables):
    run_ids = [tables.add_run().id for _ in range(20)]  # ids are random
    begun = tables.transitions.begin_attempts(run_ids)
    assert [attempt.run_id for attempt in begun] == run_ids
    times = [tables.runs.events(run_id, 0, 1000)[0][-1].time.ToNanoseconds() for run_id in run_ids]
    assert times == sorted(times)


def test_attempts_that_begin_and_end_together_do_so_once_each(tables):
    runs = [tables.add_run() for _ in range(4)]
    tables.runs.cancel(runs[1].id)
    run_ids = [run.id for run in reversed(runs)]
    begun = at_once(*[lambda: tables.transitions.begin_attempts(run_ids)] * THREADS)
    expected = [runs[3].id, runs[2].id, runs[0].id]
    assert sorted([attempt.run_id for attempt in some] for some in begun) == [[]] * (THREADS - 1) + [expected]
    last = trainer_pb2.TrainingEvent(sequence=1, state=run_states.SUCCEEDED, step=9, total_steps=9)
    outcome = AttemptOutcome(state=run_states.SUCCEEDED, event=last)
    decision = Decision(action=Action.END, state=run_states.SUCCEEDED)
    ends = [AttemptEnd(run_id=run.id, number=1, outcome=outcome, decision=decision) for run in runs]
    at_once(*[lambda: tables.transitions.end_attempts(ends)] * THREADS)
    for run in runs:
        assert tables.sequences(run.id) == ([1, 2] if run is runs[1] else [1, 2, 3])
    found = [tables.runs.get(run.id).state for run in runs]
    assert found == [run_states.SUCCEEDED, run_states.CANCELLED, run_states.SUCCEEDED, run_states.SUCCEEDED]
    assert tables.transitions.count_holding() == 0


def test_events_from_many_threads_are_numbered_without_gaps(tables):
    run = tables.add_run()
    attempt = tables.begin(run.id)

    def listen():
        for sequence in range(1, 21):
            event = trainer_pb2.TrainingEvent(
                sequence=sequence, state=run_states.RUNNING, step=sequence, total_steps=20
            )
            tables.transitions.store_event(attempt, event).result(PATIENCE)

    at_once(*[listen] * 4)
    found = tables.runs.events(run.id, 0, 1000)[0]
    assert [event.sequence for event in found] == list(range(1, 23))
    assert [event.training.sequence for event in found[2:]] == list(range(1, 21)), "a repetition was stored"


def test_events_of_many_runs_are_stored_together_and_an_unknown_run_stands_in_nobodys_way(tables):
    runs = [tables.add_run() for _ in range(THREADS)]
    attempts = [tables.begin(run.id) for run in runs]
    nobody = replace(attempts[0], run_id="run-nobody")

    def listen(attempt):
        for sequence in range(1, 11):
            event = trainer_pb2.TrainingEvent(
                sequence=sequence, state=run_states.RUNNING, step=sequence, total_steps=10
            )
            tables.transitions.store_event(attempt, event).result(PATIENCE)

    results = at_once(*[lambda attempt=attempt: listen(attempt) for attempt in [*attempts, nobody]])
    assert [type(result).__name__ for result in results] == ["NoneType"] * THREADS + ["NotFound"]
    for run in runs:
        found = tables.runs.events(run.id, 0, 1000)[0]
        assert [event.training.sequence for event in found[2:]] == list(range(1, 11))
        assert tables.runs.get(run.id).progress.step == 10


def test_a_run_ends_once(tables):
    run = tables.add_run()
    decision = Decision(action=Action.END, state=run_states.CANCELLED, message="Cancelled.")
    at_once(*[lambda: tables.transitions.end_run(run.id, decision), lambda: tables.runs.cancel(run.id)] * 3)
    assert tables.sequences(run.id) == [1, 2]


def test_a_dataset_is_deleted_or_used(tables):
    for number in range(10):
        name = f"ds-x{number}"
        tables.add_dataset(name)
        removed, run = at_once(lambda name=name: tables.datasets.remove(name), lambda name=name: tables.add_run(name))
        if isinstance(run, NotFound):
            assert removed is None
        else:
            assert isinstance(removed, FailedPrecondition)
            assert tables.datasets.get(name).id == name


def test_sentences_of_others_may_hold_anything(tables):
    run = tables.add_run()
    attempt = tables.begin(run.id)
    tables.transitions.set_waiting(attempt, "a \0 in a log, \N{SNOWMAN}")
    assert tables.runs.get(run.id).message == "a \N{REPLACEMENT CHARACTER} in a log, \N{SNOWMAN}"
