"""A seeded simulation of runs under faults: two orchestrators on one database, a trainer, and clients, without threads.

Lease, transitions, decisions and the reconciler are the real ones, on a real SQLite file. Time, the trainer and the
network between them are played. In each of its ticks, a second of played time, things may go wrong: an orchestrator is
killed or paused, the trainer is cut off or crashes, the store or the database is away, the clock jumps. Then all heals,
and every run must come to its end.

    python -m support.simulation --schedules 10000     # on all cores; prints the seeds that fail
    python -m support.simulation --seed 7              # plays one again, and tells what happened
"""

import argparse
import functools
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from google.protobuf import json_format

from cellsparse_common.errors import CellsparseError, FailedPrecondition, Unavailable
from cellsparse_orchestrator import clock, run_states
from cellsparse_orchestrator.db import session as database_module
from cellsparse_orchestrator.db.lease import LeaseLost
from cellsparse_orchestrator.db.migrate import Migration
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs import reconciler as reconciler_module
from cellsparse_orchestrator.runs.attempt_watcher import Timeouts
from cellsparse_orchestrator.runs.decisions import AttemptOutcome
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_orchestrator.runs.reconciler import Limits, RunReconciler
from cellsparse_orchestrator.runs.transitions import RunTransitions
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, trainer_pb2

FAULTY_TICKS, HEALED_TICKS = 60, 600
MOST_RUNS, STEPS = 4, 6
LOST_TICKS, START_TICKS = 3, 8
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FINAL = {run_states.state_name(state) for state in run_states.FINAL}


class Broken(AssertionError):
    """Something happened that must never happen."""


@dataclass(kw_only=True)
class Training:
    """An attempt at the trainer."""

    fence: int
    step: int
    events: list[trainer_pb2.TrainingEvent] = field(default_factory=list)
    ended: bool = False

    def say(self, state: int, reason: int = 0, message: str = "") -> None:
        """Append an event."""
        event = trainer_pb2.TrainingEvent(
            sequence=len(self.events) + 1,
            state=state,
            step=self.step,
            total_steps=STEPS,
            reason=reason,
            message=message,
        )
        self.events.append(event)
        self.ended = state in run_states.FINAL


class Trainer:
    """The trainer, as its service behaves: it knows attempts, and ends earlier ones of a run."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.trainings: dict[tuple[str, int], Training] = {}
        self._checkpoints: dict[str, int] = {}

    def start(self, run_id: str, number: int, fence: int) -> None:
        """Start an attempt unless it is known."""
        if not self._world.store_up:
            raise Unavailable("The store does not answer.")
        if (run_id, number) in self.trainings:
            return
        others = {key: one for key, one in self.trainings.items() if key[0] == run_id}
        if any(one.fence > fence for one in others.values()):
            raise FailedPrecondition("An orchestrator that has taken over has started an attempt of this run.")
        if any(key[1] > number for key in others):
            raise Broken(f"attempt {number} of {run_id} is started after a later one")
        for one in others.values():
            if not one.ended:
                one.say(run_states.FAILED, common_pb2.FAILURE_REASON_LOST, "A later attempt was started.")
        made = Training(fence=fence, step=self._checkpoints.get(run_id, 0))
        made.say(run_states.RUNNING)
        self.trainings[run_id, number] = made

    def stop(self, run_id: str, number: int) -> None:
        """End an attempt."""
        found = self.trainings.get((run_id, number))
        if found is not None and not found.ended:
            found.say(run_states.CANCELLED)

    def tick(self, random_: random.Random, *, faulty: bool) -> None:
        """Take a step of each training."""
        for (run_id, _), one in self.trainings.items():
            if one.ended:
                continue
            if faulty and random_.random() < 0.02:
                one.say(run_states.FAILED, common_pb2.FAILURE_REASON_LOST, "The process has died.")
            elif faulty and not self._world.store_up and random_.random() < 0.1:
                one.say(run_states.FAILED, common_pb2.FAILURE_REASON_STORAGE, "The store does not answer.")
            else:
                one.step += 1
                if self._world.store_up:
                    self._checkpoints[run_id] = one.step
                one.say(run_states.RUNNING if one.step < STEPS else run_states.SUCCEEDED)

    def restart(self) -> None:
        """Forget all attempts, as a trainer on another machine would."""
        self.trainings.clear()


class Watcher:
    """Plays `AttemptWatcher`: what that does in a thread happens in `tick`."""

    def __init__(self, attempt, launcher, timeouts, callbacks, loop) -> None:
        self.attempt = attempt
        self.outcome: AttemptOutcome | None = None
        self.finished = self.stopping = self.no_room = self.no_quota = False
        self._world: World = launcher.world
        self._callbacks = callbacks
        self._accepted = attempt.last_sequence > 0
        self._after = attempt.last_sequence
        self._silent = 0

    def start(self) -> None:
        """Begin: the orchestrator calls `tick`."""

    def end_attempt(self) -> None:
        """Ask the trainer to end the attempt."""
        self.stopping = True

    def detach(self) -> None:
        """Look no more."""
        self.finished = True

    def join(self, seconds: float) -> None:
        """Return at once: there is no thread."""

    def tick(self) -> None:
        """Do what one second allows."""
        if self.finished:
            return
        try:
            self._drive()
        except Broken:
            raise
        except CellsparseError:
            self.finished = True  # the next watcher goes on where the stored events end
        if self.finished:
            self._callbacks.changed()

    def _drive(self) -> None:
        key = (self.attempt.run_id, self.attempt.number)
        if not self._accepted and self.stopping:
            self._end(AttemptOutcome(state=run_states.CANCELLED))
            return
        if self._world.cut:
            self._silent += 1
            if self._silent > (LOST_TICKS if self._accepted else START_TICKS):
                self._end(_lost("it does not answer"))
            return
        if not self._accepted:
            fence = self._callbacks.starting(self.attempt, "trainer")
            try:
                self._world.trainer.start(*key, fence)
            except FailedPrecondition as error:
                self._end(AttemptOutcome(state=run_states.FAILED, message=error.message))
                return
            except Unavailable:
                self._callbacks.waiting(self.attempt, "waiting for the store")
                return
            self._callbacks.accepted(self.attempt, {})
            self._accepted = True
        self._silent = 0
        training = self._world.trainer.trainings.get(key)
        if training is None:
            self._end(_lost("it does not know the attempt any more"))
            return
        if self.stopping:
            self._world.trainer.stop(*key)
        for event in training.events[self._after :]:
            if event.state in run_states.FINAL:
                self._end(AttemptOutcome(state=event.state, reason=event.reason, message=event.message, event=event))
                return
            self._callbacks.store_event(self.attempt, event).result()
            self._after = event.sequence

    def _end(self, outcome: AttemptOutcome) -> None:
        self.outcome, self.finished = outcome, True


def _lost(what: str) -> AttemptOutcome:
    return AttemptOutcome(state=run_states.FAILED, reason=common_pb2.FAILURE_REASON_LOST, message=f"Lost: {what}.")


class StoreGate:
    """Plays `runs.store_gate.StoreGate`, which asks the store in a thread."""

    asking = False

    def __init__(self, world: "World") -> None:
        self._world = world

    @property
    def waiting(self) -> str:
        """What waits for the store; empty: nothing."""
        return "" if self._world.store_up else "waiting for the store"

    def ready(self) -> bool:
        """Whether the store answers."""
        return self._world.store_up

    def suspect(self) -> None:
        """Do nothing: what `ready` says is never old."""


class Orchestrator:
    """One orchestrator: it leads or stands by."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.paused = 0
        self.leads = False
        self.database = Database(world.url)
        notifier = Notifier()
        self.runs = Runs(self.database, notifier)
        self.reconciler = RunReconciler(
            RunTransitions(self.database, notifier),
            SimpleNamespace(
                world=world,
                stops_trainers=False,
                keep_only=lambda *_: True,
                release=lambda *_: None,
                service=lambda _: None,
            ),
            notifier,
            limits=Limits(slots=2, first_pause=1.0, longest_pause=8.0),
            timeouts=Timeouts(start=1.0, lost=1.0, stop=1.0),
            specify=lambda *_: None,
            gate=StoreGate(world),
        )

    def tick(self) -> bool:
        """Renew or seek the lease, then reconcile; return False if this process ends itself."""
        try:
            if self.leads:
                self.database.renew_lease()
            else:
                self.leads = self.database.try_lead()
            if self.leads:
                self.reconciler.step()
                for watcher in list(self.reconciler._watchers.values()):
                    watcher.tick()
        except LeaseLost:
            return False
        except Broken:
            raise
        except CellsparseError:
            pass
        return True

    def close(self) -> None:
        """Drop everything, as a killed process does: the lease is not given back."""
        self.database._engine.dispose()


class World:
    """Everything that one schedule plays.

    Args:
        seed: Decides all that happens.
        folder: Where the database lies.
        tell: Takes a sentence about everything that goes wrong.
    """

    def __init__(self, seed: int, folder: Path, tell=lambda _: None) -> None:
        self.random = random.Random(seed)
        self.url = f"sqlite:///{folder / 'simulated.db'}"
        self.file = folder / "simulated.db"
        self.time = self.clock_error = 0.0
        self.store_up, self.cut, self.database_up = True, False, True
        self.trainer = Trainer(self)
        self.orchestrators: list[Orchestrator] = []
        self.run_ids: list[str] = []
        self.cancelled: set[str] = set()
        self._until: dict[str, float] = {}
        self._names = iter(range(10**6))
        self._ended: dict[str, tuple] = {}
        self._tell = tell

    def play(self) -> None:
        """Play the whole schedule; raises Broken."""
        for _ in range(FAULTY_TICKS):
            self._tick(faulty=True)
        self.heal()
        for _ in range(HEALED_TICKS):
            self._tick(faulty=False)
            if len(self._ended) == len(self.run_ids) and self.run_ids:
                break
        self._check_the_end()

    def heal(self) -> None:
        """End all faults."""
        self._until.clear()
        self.store_up, self.cut, self.database_up = True, False, True
        for one in self.orchestrators:
            one.paused = 0

    def _tick(self, *, faulty: bool) -> None:
        self.time += 1
        if faulty:
            self._break_something()
        while len(self.orchestrators) < 2 and self.database_up and (not faulty or self.random.random() < 0.4):
            self.orchestrators.append(Orchestrator(self, f"orchestrator {next(self._names)}"))
        if faulty or not self.run_ids:
            self._ask_for_something()
        self.random.shuffle(self.orchestrators)
        for one in list(self.orchestrators):
            if one.paused > 0:
                one.paused -= 1
            elif not one.tick():
                self._tell(f"{self.time:.0f} s: {one.name} has lost the lease and ends")
                self._drop(one)
        self.trainer.tick(self.random, faulty=faulty)
        self._check()

    def _break_something(self) -> None:
        for name in [name for name, end in self._until.items() if self.time >= end]:
            del self._until[name]
        chance = self.random.random
        for name, share in (("store", 0.03), ("cut", 0.04), ("database", 0.02)):
            if name not in self._until and chance() < share:
                self._until[name] = self.time + self.random.choice((1, 3, 12, 30))
                self._tell(f"{self.time:.0f} s: {name} away until {self._until[name]:.0f} s")
        self.store_up, self.cut = "store" not in self._until, "cut" in self._until
        self.database_up = "database" not in self._until
        if self.orchestrators and chance() < 0.05:
            one = self.random.choice(self.orchestrators)
            self._tell(f"{self.time:.0f} s: {one.name} is killed")
            self._drop(one)
        if self.orchestrators and chance() < 0.05:
            one = self.random.choice(self.orchestrators)
            one.paused = self.random.choice((2, 8, 20))
            self._tell(f"{self.time:.0f} s: {one.name} is paused for {one.paused} s")
        if chance() < 0.02:
            self.clock_error = self.random.choice((-3600.0, 0.0, 3600.0))
            self._tell(f"{self.time:.0f} s: the clock is wrong by {self.clock_error:.0f} s")
        if chance() < 0.01:
            self._tell(f"{self.time:.0f} s: the trainer restarts and knows nothing")
            self.trainer.restart()

    def _ask_for_something(self) -> None:
        leading = [one for one in self.orchestrators if one.leads and not one.paused]
        if not leading:
            return
        runs = leading[0].runs
        try:
            if len(self.run_ids) < MOST_RUNS and self.random.random() < 0.2:
                settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
                request = orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=settings, max_attempts=3)
                run_id = f"run-{len(self.run_ids)}"
                runs.add(run_id, run_id, request)
                self.run_ids.append(run_id)
            elif self.run_ids and self.random.random() < 0.02:
                run_id = self.random.choice(self.run_ids)
                runs.cancel(run_id)
                self.cancelled.add(run_id)
                self._tell(f"{self.time:.0f} s: {run_id} is cancelled")
        except CellsparseError:
            pass

    def _drop(self, one: Orchestrator) -> None:
        one.close()
        self.orchestrators.remove(one)

    def wrote(self, fence: int) -> None:
        """Take note of a transaction that was written under a lease; 0: under none."""
        with sqlite3.connect(self.file) as connection:
            ((newest,),) = connection.execute("SELECT fence FROM leases").fetchall()
        connection.close()
        if 0 < fence < newest:
            raise Broken(f"the holder of lease {fence} wrote after lease {newest} was taken")

    def _check(self) -> None:
        """Look at the database as it is."""
        with sqlite3.connect(self.file) as connection:
            runs = connection.execute("SELECT id, state, attempts, last_sequence, reason, message FROM runs").fetchall()
            open_ = connection.execute(
                "SELECT run_id, count(*) FROM attempts WHERE ended_at IS NULL GROUP BY run_id"
            ).fetchall()
            events = {
                run_id: numbers
                for run_id, *numbers in connection.execute(
                    "SELECT run_id, count(*), min(sequence), max(sequence) FROM events GROUP BY run_id"
                )
            }
        connection.close()
        for run_id, number in open_:
            if number > 1:
                raise Broken(f"{number} attempts of {run_id} are under way at once")
        for run_id, state, *rest in runs:
            last = rest[1]
            if last and events.get(run_id) != [last, 1, last]:
                raise Broken(f"the events of {run_id} are {events.get(run_id)}, the last one should be {last}")
            row = (state, *rest)
            if run_id in self._ended and self._ended[run_id] != row:
                raise Broken(f"{run_id} had ended as {self._ended[run_id]} and is {row} now")
            if state in FINAL:
                self._ended.setdefault(run_id, row)

    def _check_the_end(self) -> None:
        unfinished = sorted(set(self.run_ids) - set(self._ended))
        if unfinished:
            raise Broken(f"{', '.join(unfinished)} did not end within {HEALED_TICKS} s after all had healed")
        with sqlite3.connect(self.file) as connection:
            models = {row[0] for row in connection.execute("SELECT id FROM models")}
        connection.close()
        succeeded = {run_id for run_id, row in self._ended.items() if row[0] == "SUCCEEDED"}
        if models != succeeded:
            raise Broken(f"models are {sorted(models)}, runs that succeeded {sorted(succeeded)}")
        for run_id, (state, _, _, reason, message) in self._ended.items():
            if state == "CANCELLED" and run_id not in self.cancelled:
                raise Broken(f"{run_id} was cancelled by nobody")
            if reason == "STORAGE":
                raise Broken(f"{run_id} failed because the store was away: {message}")


def play(seed: int, tell=lambda _: None) -> str:
    """Play one schedule; return what broke, empty if nothing did."""
    with tempfile.TemporaryDirectory(dir=_fast_folder(), prefix="cellsparse-sim-") as made, ExitStack() as stack:
        folder = Path(made)
        shutil.copy(Path(_template_folder().name) / "template.db", folder / "simulated.db")
        world = World(seed, folder, tell)
        for patch in _patches(world):
            stack.enter_context(patch)
        try:
            world.play()
        except Broken as error:
            return str(error)
        finally:
            for one in list(world.orchestrators):
                one.close()
    return ""


def _patches(world: World) -> Iterator[mock._patch]:
    class PlayedClock(datetime):
        @classmethod
        def now(cls, tz=None):
            return EPOCH + timedelta(seconds=world.time + world.clock_error)

    real_write, real_read = Database._write, Database.read

    @contextmanager
    def write(self, **more):
        _answer(world)
        with real_write(self, **more) as session:
            yield session
        world.wrote(self.fence)

    @contextmanager
    def read(self):
        _answer(world)
        with real_read(self) as session:
            yield session

    yield mock.patch.object(clock, "datetime", PlayedClock)
    yield mock.patch.object(reconciler_module, "time", SimpleNamespace(monotonic=lambda: world.time))
    yield mock.patch.object(reconciler_module, "AttemptWatcher", Watcher)
    yield mock.patch.object(database_module, "migrate", return_value=Migration(before="", after=""))
    yield mock.patch.object(Database, "_write", write)
    yield mock.patch.object(Database, "read", read)


def _answer(world: World) -> None:
    if not world.database_up:
        raise Unavailable("The database does not answer.")


@functools.cache
def _template_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with an empty, migrated database that has one dataset; it goes with the process that made it."""
    made = tempfile.TemporaryDirectory(dir=_fast_folder(), prefix="cellsparse-sim-")
    database = Database(f"sqlite:///{made.name}/template.db")
    summary = json_format.MessageToJson(dataset_pb2.Dataset(id="ds-1", name="ds-1", test_items=1), indent=None)
    with database.write() as session:
        session.add(DatasetRow(id="ds-1", name="ds-1", summary=summary, created_at=EPOCH))
    database._engine.dispose()
    return made


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> int:
    """Play the schedules that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    if given.seed is not None:
        broken = play(given.seed, print)
        print(f"seed {given.seed}: {broken or 'nothing broke'}")
        return int(bool(broken))
    failed = 0
    _template_folder()  # the processes of the pool inherit it
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        seeds = range(given.first, given.first + given.schedules)
        for seed, broken in zip(seeds, pool.map(play, seeds, chunksize=20), strict=True):
            if broken:
                failed += 1
                print(f"seed {seed}: {broken}", flush=True)
    print(f"{given.schedules} schedules, {failed} broke something")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
