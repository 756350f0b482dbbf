"""The reconciler and its watchers, with real databases of both kinds and a trainer that does what the test says."""

import time
from dataclasses import replace

import grpc
import pytest
from sqlalchemy import update
from support.limits import PATIENCE, QUICK
from support.orchestrator import until
from support.orchestrator_fakes import FakeLauncher, FakeTrainer

from cellsparse_common.errors import FailedPrecondition, Unavailable
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow
from cellsparse_orchestrator.launchers.base import Service
from cellsparse_orchestrator.notifier import RECONCILER, Notifier
from cellsparse_orchestrator.runs import reconciler as reconciler_module
from cellsparse_orchestrator.runs.attempt_watcher import Timeouts
from cellsparse_orchestrator.runs.decisions import Action, Decision
from cellsparse_orchestrator.runs.queries import RunFilter, Runs
from cellsparse_orchestrator.runs.reconciler import Limits, RunReconciler
from cellsparse_orchestrator.runs.strays import StrayWatch
from cellsparse_orchestrator.runs.transitions import RunTransitions
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, trainer_pb2


class System:
    """An orchestrator without its API; `restart` is what follows a crash."""

    def __init__(self, url):
        self.database = Database(url)
        assert self.database.try_lead()
        self.datasets = Datasets(self.database)
        self.datasets.add(dataset_pb2.Dataset(id="ds-1", name="tiny", created_at=timestamp(now())))
        self.trainer = FakeTrainer()
        self.server, address = self.trainer.serve()
        self.launcher = FakeLauncher(address)
        self.slots = 1
        self.limits = None
        self.timeouts = Timeouts(start=PATIENCE, lost=PATIENCE, stop=PATIENCE)
        self.reconciler = None
        self.specified = []

    def restart(self):
        if self.reconciler is not None:
            self.reconciler.stop()
        self.notifier = Notifier()
        self.runs = Runs(self.database, self.notifier)
        self.transitions = RunTransitions(self.database, self.notifier)
        self.reconciler = RunReconciler(
            self.transitions,
            self.launcher,
            self.notifier,
            limits=self.limits or Limits(slots=self.slots, first_pause=0.05, longest_pause=1.0),
            timeouts=self.timeouts,
            specify=lambda attempt, versions: self.specified.append((attempt.run_id, versions)),
        )
        self.reconciler.start()

    def until_looked_twice(self):
        """Wait until a whole pass has begun and ended."""
        for _ in range(2):
            seen = self.reconciler.looked
            self.notifier.notify(RECONCILER)
            until(lambda seen=seen: self.reconciler.looked > seen)

    def create(self, dataset_id="ds-1", **fields):
        request = orchestrator_pb2.CreateRunRequest(
            dataset_id=dataset_id, settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings()), **fields
        )
        return self.runs.add(new_id("run"), "a run", request).id

    def until(self, condition, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    def until_state(self, run_id, state, attempts=None):
        self.until(
            lambda: (found := self.runs.get(run_id)).state == state and attempts in (None, found.attempts),
        )

    def begun(self, run_id, attempt=1):
        self.until(lambda: (run_id, attempt) in self.trainer.events)
        self.trainer.say(run_id, attempt, state=run_states.STARTING)
        self.trainer.say(run_id, attempt, state=run_states.RUNNING, step=3, total_steps=9, losses={"loss": 0.5})
        self.until_state(run_id, run_states.RUNNING, attempt)

    def names(self, run_id):
        found = []
        for event in self.runs.events(run_id, 0)[0]:
            if found[-1:] != [run_states.state_name(event.state)]:
                found.append(run_states.state_name(event.state))
        return found


@pytest.fixture
def system(database_url):
    made = System(database_url)
    made.restart()
    yield made
    made.reconciler.stop()
    made.server.stop(None)
    made.database.close()


def test_a_run_that_succeeds_leaves_a_model(system):
    run_id = system.create()
    system.begun(run_id)
    system.trainer.say(run_id, state=run_states.RUNNING, step=9, total_steps=9, validation={"score": 0.25})
    system.trainer.say(run_id, state=run_states.SUCCEEDED, step=8, validation={"score": 0.5})
    system.until_state(run_id, run_states.SUCCEEDED)
    assert system.names(run_id) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    events, ended = system.runs.events(run_id, 0)
    assert ended
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].training.state == run_states.SUCCEEDED
    model = Models(system.database).get(run_id)
    assert (model.step, dict(model.validation)) == (8, {"score": 0.5})
    assert system.runs.get(run_id).progress.step == 9
    assert system.specified == [(run_id, {"numpy": "2"})]
    assert system.launcher.released == [(run_id, 1)]


def test_a_restart_neither_loses_nor_repeats_anything(system):
    run_id = system.create()
    system.begun(run_id)
    for step in range(4, 8):
        system.restart()
        system.trainer.say(run_id, state=run_states.RUNNING, step=step, total_steps=9)
    system.trainer.say(run_id, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)
    assert system.trainer.asked == [(run_id, 1)]
    events = system.runs.events(run_id, 0)[0]
    stored = [event.training.sequence for event in events if event.HasField("training")]
    assert stored == list(range(1, len(stored) + 1))


def test_the_launcher_hears_which_attempts_are_under_way(system):
    system.slots = 2
    ids = [system.create() for _ in range(3)]
    system.restart()
    for run_id in ids[:2]:
        system.begun(run_id)
    system.restart()
    system.until(lambda: system.launcher.kept[-1:] == [{(ids[0], 1), (ids[1], 1)}])


def test_news_ends_the_wait_for_a_node(system):
    """A launcher that says `waiting` is asked again when it has news, and not all the time."""
    ready, asked = system.launcher.trainer, []
    system.launcher.trainer = Service(name="unet", waiting=True, message="No room.", again_seconds=PATIENCE)
    system.launcher.ensure = lambda *key: asked.append(key) or system.launcher.trainer
    callbacks = []
    system.launcher.subscribe = lambda run_id, attempt, on_change: callbacks.append(on_change)
    run_id = system.create()
    system.until(lambda: system.runs.get(run_id).message == "No room.")
    time.sleep(1.0)
    assert len(asked) <= 2
    system.launcher.trainer = ready
    began = time.monotonic()
    callbacks[-1]()
    system.until(lambda: (run_id, 1) in system.trainer.events)
    assert time.monotonic() - began < QUICK


def test_while_a_run_waits_for_room_no_younger_one_of_its_backend_begins(system):
    callbacks, room = [], system.launcher.trainer
    system.launcher.trainer = Service(name="unet", waiting=True, no_room=True, message="No room.")
    system.launcher.subscribe = lambda run_id, attempt, on_change: callbacks.append(on_change)
    system.slots = 2
    system.restart()
    old = system.create()
    system.until(lambda: system.runs.get(old).message == "No room.")
    young = system.create()
    time.sleep(1.5)
    assert system.runs.get(young).state == run_states.QUEUED
    system.launcher.trainer = room
    callbacks[-1]()
    system.until(lambda: {(old, 1), (young, 1)} <= set(system.trainer.events))  # both have room now


def test_a_run_that_waits_for_its_projects_quota_leaves_its_slot_to_other_projects(system):
    _add_dataset(system, "ds-own", "pr-own")
    system.launcher.trainer = Service(name="unet", waiting=True, no_quota=True, message="No quota.")
    waits, queued = system.create(dataset_id="ds-own"), None
    system.until(lambda: system.runs.get(waits).message == "No quota.")
    queued = system.create(dataset_id="ds-own")
    other = system.create()
    system.until(lambda: system.runs.get(other).message == "No quota.")
    assert system.runs.get(queued).state == run_states.QUEUED
    assert system.launcher.projects == {waits: "pr-own", other: ""}


def test_a_preempted_attempt_does_not_count(system):
    run_id = system.create(max_attempts=1)
    for attempt in (1, 2, 3):
        system.begun(run_id, attempt)
        system.launcher.preempted = "Others need it."
        system.trainer.say(run_id, attempt, state=run_states.FAILED, reason=common_pb2.FAILURE_REASON_LOST)
        system.until(lambda attempt=attempt: system.runs.get(run_id).attempts > attempt)
    system.launcher.preempted = ""
    system.begun(run_id, 4)
    system.trainer.say(run_id, 4, state=run_states.FAILED, reason=common_pb2.FAILURE_REASON_LOST, message="It broke.")
    system.until_state(run_id, run_states.FAILED)
    assert system.runs.get(run_id).message == "It broke. This was attempt 1 of 1."
    retry = next(event for event in system.runs.events(run_id, 0)[0] if event.state == run_states.RETRYING)
    # The queue decides when the next attempt trains, so nothing is said about a pause.
    assert (retry.reason, retry.message) == (common_pb2.FAILURE_REASON_EVICTED, "Others need it.")


def _add_dataset(system, dataset_id, project):
    system.datasets.add(dataset_pb2.Dataset(id=dataset_id, name=dataset_id, created_at=timestamp(now())))
    with system.database.write() as session:
        session.execute(update(DatasetRow).where(DatasetRow.id == dataset_id).values(project_id=project))


def test_an_attempt_written_down_but_not_asked_for_is_asked_for_after_a_restart(system):
    trainer = system.launcher.trainer
    system.launcher.trainer = replace(trainer, address="")
    run_id = system.create()
    system.until_state(run_id, run_states.STARTING)
    system.reconciler.stop()
    system.launcher.trainer = trainer
    system.restart()
    system.begun(run_id)
    assert system.trainer.asked == [(run_id, 1)]


def test_a_trainer_that_forgot_the_attempt_costs_one(system):
    run_id = system.create()
    system.begun(run_id)
    del system.trainer.events[run_id, 1]
    system.trainer.break_streams()
    system.begun(run_id, attempt=2)
    system.trainer.say(run_id, 2, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)
    assert system.names(run_id) == ["QUEUED", "STARTING", "RUNNING", "RETRYING", "STARTING", "RUNNING", "SUCCEEDED"]
    retrying = next(event for event in system.runs.events(run_id, 0)[0] if event.state == run_states.RETRYING)
    assert retrying.reason == common_pb2.FAILURE_REASON_LOST
    assert "restarted" in retrying.message


def test_a_stream_that_breaks_shortly_costs_nothing(system):
    run_id = system.create()
    system.begun(run_id)
    for step in range(4, 7):
        system.trainer.break_streams()
        system.trainer.say(run_id, state=run_states.RUNNING, step=step, total_steps=9)
    system.trainer.say(run_id, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)
    assert system.runs.get(run_id).attempts == 1


def test_a_trainer_that_stays_away_fails_the_run_after_its_attempts(system):
    system.timeouts = Timeouts(start=2.0, lost=0.5, stop=2.0)
    system.restart()
    run_id = system.create(max_attempts=2)
    system.begun(run_id)
    system.server.stop(None)
    system.until_state(run_id, run_states.FAILED)
    run = system.runs.get(run_id)
    assert (run.attempts, run.reason) == (2, common_pb2.FAILURE_REASON_LOST)
    assert run.message.endswith("This was attempt 2 of 2.")


@pytest.mark.parametrize(
    ("code", "reason", "attempts"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, common_pb2.FAILURE_REASON_USER_ERROR, 1),
        (grpc.StatusCode.NOT_FOUND, common_pb2.FAILURE_REASON_USER_ERROR, 1),
        (grpc.StatusCode.INTERNAL, common_pb2.FAILURE_REASON_INTERNAL, 3),
    ],
)
def test_a_refused_start(system, code, reason, attempts):
    system.trainer.refuse_with = (code, "That cannot be trained on.")
    run_id = system.create()
    system.until_state(run_id, run_states.FAILED)
    run = system.runs.get(run_id)
    assert (run.reason, run.attempts) == (reason, attempts)
    assert "That cannot be trained on." in run.message


def test_an_outage_of_the_store_uses_up_no_attempt(system):
    run_id = system.create(max_attempts=2)
    for attempt in range(1, 5):
        system.begun(run_id, attempt)
        reason = common_pb2.FAILURE_REASON_STORAGE
        system.trainer.say(run_id, attempt, state=run_states.FAILED, reason=reason, message="Cannot reach it.")
    system.begun(run_id, 5)
    system.trainer.say(run_id, 5, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)


def test_a_run_that_waits_for_the_store_leaves_its_slot_to_others(system):
    system.limits = Limits(slots=1, first_pause=PATIENCE, longest_pause=PATIENCE)
    system.restart()
    waiting, other = system.create(), system.create()
    system.begun(waiting)
    reason = common_pb2.FAILURE_REASON_STORAGE
    system.trainer.say(waiting, state=run_states.FAILED, reason=reason, message="Cannot reach it.")
    system.begun(other)
    assert system.runs.get(waiting).state == run_states.RETRYING
    system.runs.cancel(waiting)
    system.until_state(waiting, run_states.CANCELLED)


def test_a_damaged_object_fails_the_run_after_its_attempts(system):
    run_id = system.create(max_attempts=2)
    for attempt in (1, 2):
        system.begun(run_id, attempt)
        reason = common_pb2.FAILURE_REASON_STORAGE
        system.trainer.say(run_id, attempt, state=run_states.FAILED, reason=reason, message="Damaged.", damaged=True)
    system.until_state(run_id, run_states.FAILED)
    assert system.runs.get(run_id).message == "Damaged. This was attempt 2 of 2."


def test_what_a_training_says_stands_until_it_says_something_else(system):
    run_id = system.create()
    system.begun(run_id)
    for said, shown in (("waiting for the store: away.", None), ("", "waiting for the store: away."), ("Back.", None)):
        system.trainer.say(run_id, state=run_states.RUNNING, step=4, total_steps=9, message=said)
        expected = said if shown is None else shown
        system.until(lambda expected=expected: system.runs.get(run_id).message == expected)


def test_a_training_that_should_not_run_is_ended(system):
    """As after a restart in the middle of a cancellation, or a stop that never reached the trainer."""
    run_id, theirs = system.create(), ("run-theirs", 1)
    system.begun(run_id)
    watch = StrayWatch(system.transitions, system.launcher, PATIENCE)
    system.trainer.events[theirs] = []
    address = system.launcher.trainer.address
    assert watch.look("unet", address) == []
    system.reconciler.stop()
    system.transitions.end_run(run_id, Decision(action=Action.END, state=run_states.CANCELLED, message="Cancelled."))
    assert watch.look("unet", address) == [(run_id, 1)]
    assert system.trainer.events[run_id, 1][-1].state == run_states.CANCELLED
    assert watch.look("unet", address) == []
    assert system.trainer.events[theirs] == [], "another orchestrator may share the trainer"


def test_a_trainer_that_cannot_be_there(system):
    system.launcher.trainer = Service(name="unet", missing=True, message="It is not installed.")
    run_id = system.create()
    system.until_state(run_id, run_states.FAILED)
    run = system.runs.get(run_id)
    assert (run.reason, run.message) == (common_pb2.FAILURE_REASON_UNSCHEDULABLE, "It is not installed.")


def test_cancelling_a_running_run(system):
    run_id = system.create()
    system.begun(run_id)
    assert system.runs.cancel(run_id).message == "Being cancelled."
    system.until_state(run_id, run_states.CANCELLED)
    assert system.trainer.events[run_id, 1][-1].state == run_states.CANCELLED
    assert system.runs.cancel(run_id).state == run_states.CANCELLED


def test_cancelling_while_the_trainer_is_away(system):
    system.launcher.trainer = replace(system.launcher.trainer, address="", message="It is being started.")
    run_id = system.create()
    system.until_state(run_id, run_states.STARTING)
    system.runs.cancel(run_id)
    system.until_state(run_id, run_states.CANCELLED)
    assert system.trainer.asked == []


def test_cancelling_what_nobody_watches_yet(system):
    run_id = system.create()
    system.begun(run_id)
    system.reconciler.stop()
    system.runs.cancel(run_id)
    assert system.runs.get(run_id).state == run_states.RUNNING
    system.restart()
    system.until_state(run_id, run_states.CANCELLED)


def test_slots_are_given_by_priority_then_age(system):
    system.reconciler.stop()
    system.slots = 2
    system.restart()
    busy = [system.create(), system.create()]
    for run_id in busy:
        system.begun(run_id)
    late, urgent, later = system.create(), system.create(priority=5), system.create()
    runs = {run_id: system.runs.get(run_id) for run_id in (urgent, late, later)}
    assert [run.queue_position for run in runs.values()] == [1, 2, 3]
    assert runs[later].message == "waiting: 4 runs ahead"
    for done, expected in zip([*busy, urgent], [urgent, late, later], strict=True):
        system.trainer.say(done, state=run_states.SUCCEEDED)
        system.begun(expected)
        active = system.runs.page(common_pb2.PageRequest(), RunFilter(states=sorted(run_states.ACTIVE)))[0]
        assert len(active) <= 2


def test_a_pass_looks_only_at_runs_that_something_happened_to(system, monkeypatch):
    monkeypatch.setattr(reconciler_module, "_WHOLE_SECONDS", 3600.0)
    system.reconciler.stop()
    system.slots = 2
    system.restart()
    quiet, cancelled = system.create(), system.create()
    for run_id in (quiet, cancelled):
        system.begun(run_id)
        system.trainer.say(run_id, state=run_states.RUNNING)
        system.until_state(run_id, run_states.RUNNING)
    looked, real = [], system.transitions.active
    system.until_looked_twice()
    monkeypatch.setattr(system.transitions, "active", lambda chosen=None: looked.append(chosen) or real(chosen))
    system.runs.cancel(cancelled)
    system.until_state(cancelled, run_states.CANCELLED)
    assert {cancelled} in looked
    assert all(chosen is not None and quiet not in chosen for chosen in looked)
    system.trainer.say(quiet, state=run_states.SUCCEEDED)
    system.until_state(quiet, run_states.SUCCEEDED)


def test_a_database_that_fails_for_a_moment_loses_no_event(system, monkeypatch):
    failed = []
    store = RunTransitions.store_event

    def fail(self, attempt, event):
        if event.step == 4 and len(failed) < 2:
            failed.append(event.sequence)
            raise Unavailable("The database does not answer (disk full); try again.")
        return store(self, attempt, event)

    monkeypatch.setattr(RunTransitions, "store_event", fail)
    run_id = system.create()
    system.begun(run_id)
    system.trainer.say(run_id, state=run_states.RUNNING, step=4, total_steps=9)
    system.trainer.say(run_id, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)
    stored = [event.training.sequence for event in system.runs.events(run_id, 0)[0] if event.HasField("training")]
    assert (failed, stored) == ([3, 3], [1, 2, 3, 4])
    assert system.runs.get(run_id).attempts == 1


def test_trainers_that_end_with_the_orchestrator_cost_no_attempt(system):
    system.launcher.stops_trainers = True
    run_id = system.create(max_attempts=1)
    system.begun(run_id)
    system.restart()
    system.begun(run_id, attempt=2)
    system.trainer.say(run_id, 2, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)
    retrying = next(event for event in system.runs.events(run_id, 0)[0] if event.state == run_states.RETRYING)
    assert retrying.reason == common_pb2.FAILURE_REASON_EVICTED


def test_a_dataset_in_use_stays(system):
    run_id = system.create()
    with pytest.raises(FailedPrecondition, match=run_id):
        system.datasets.remove("ds-1")
    system.begun(run_id)
    system.trainer.say(run_id, state=run_states.SUCCEEDED)
    system.until_state(run_id, run_states.SUCCEEDED)
    system.datasets.remove("ds-1")


def test_lists_by_state_backend_and_dataset_in_pages(system):
    system.reconciler.stop()
    made = [system.create() for _ in range(7)]
    system.runs.cancel(made[2])
    found, token = [], ""
    while True:
        page = common_pb2.PageRequest(page_size=3, page_token=token)
        runs, token = system.runs.page(page, RunFilter(states=[run_states.QUEUED], backend="unet", dataset_id="ds-1"))
        found += [run.id for run in runs]
        if not token:
            break
    assert found == [run_id for run_id in reversed(made) if run_id != made[2]]
    assert system.runs.page(common_pb2.PageRequest(), RunFilter(backend="other")) == ([], "")
    assert system.runs.count_active() == 6
