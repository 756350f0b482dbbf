"""The reconciler of runs: a loop that reads runs from the database, decides what they need, and acts."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.launchers.base import Launcher
from cellsparse_orchestrator.notifier import RECONCILER, Notifier
from cellsparse_orchestrator.runs.attempt_watcher import AttemptWatcher, Callbacks, Timeouts
from cellsparse_orchestrator.runs.decisions import Action, Decision, Facts, decide
from cellsparse_orchestrator.runs.rows import RunAttempt, UnfinishedRun
from cellsparse_orchestrator.runs.store_gate import StoreGate
from cellsparse_orchestrator.runs.transitions import AttemptEnd, RunTransitions
from cellsparse_orchestrator.runs.watcher_loop import WatcherLoop
from cellsparse_proto.v1 import common_pb2

if TYPE_CHECKING:  # it needs the S3 client, which is loaded where there is an S3 store
    from cellsparse_orchestrator.runs.store_credentials import CredentialIssuer

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT = 1.0
_REST_SHARE, _LONGEST_REST = 50.0, 5.0
"""With very many runs a pass takes long. Without news the loop then rests this many times as long, up to a limit."""
_LONGEST_GATHER = 0.1
"""After a pass the loop rests as long as the pass took, up to this, even if there are news."""
_REPEAT_SECONDS = 1.0
_END_SECONDS = 10.0
_SWEEP_SECONDS = 30.0
_WHOLE_SECONDS = 30.0
"""How often all runs are looked at; in between only those that something has happened to."""
_MOST_AT_ONCE = 50
"""Most attempts that are begun or ended in one transaction."""
_Item = TypeVar("_Item")
_BEGINNING = (run_states.QUEUED, run_states.RETRYING)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many runs train at once, and how soon a failed one is retried."""

    slots: int
    """Runs that train at the same time."""
    first_pause: float
    """Seconds before the second attempt; doubles with every further one."""
    longest_pause: float
    """Seconds."""


class RunReconciler(threading.Thread):
    """Owns the watchers of all attempts.

    A pass looks at the runs that it was told of (see `Notifier.tell`), and at those that nobody will tell of: they
    pause, or have no watcher. Now and then, and after a pass that failed, it looks at all runs.

    Args:
        transitions: The runs.
        launcher: Knows the trainers.
        notifier: Wakes the loop.
        limits: How many runs train at once, and how soon a failed one is retried.
        timeouts: How long watchers wait.
        specify: Writes the specification of an attempt's run (see `Callbacks`).
        gate: Knows whether the store answers; None: nobody asks.
        trace: Returns the `traceparent` that an attempt joins; called in its watcher's thread.
        issuer: Hands out credentials for the store to attempts; None: trainers have some.
    """

    def __init__(
        self,
        transitions: RunTransitions,
        launcher: Launcher,
        notifier: Notifier,
        *,
        limits: Limits,
        timeouts: Timeouts,
        specify: Callable[[RunAttempt, dict[str, str]], None],
        gate: StoreGate | None = None,
        trace: Callable[[RunAttempt], str] = lambda _: "",
        issuer: "CredentialIssuer | None" = None,
    ) -> None:
        super().__init__(name="reconciler", daemon=True)
        self._transitions = transitions
        self._launcher = launcher
        self._notifier = notifier
        self._limits = limits
        self._timeouts = timeouts
        self._specify = specify
        self._gate = gate
        self._trace = trace
        self._issuer = issuer
        self._loop = WatcherLoop()
        self._watchers: dict[str, AttemptWatcher] = {}
        self._not_before: dict[str, float] = {}
        self._unsettled: set[str] = set()
        """Runs to look at in the next pass."""
        self._ends: list[AttemptEnd] = []
        """Ends of attempts that this pass found."""
        self._begins: list[str] = []
        """Runs whose next attempts this pass begins."""
        self._begun: list[RunAttempt] = []
        """Attempts that this pass has begun and nobody watches yet."""
        self._whole, self._next_whole = True, 0.0
        self._next_sweep = 0.0
        self.looked = time.monotonic()
        """When it last looked at the runs, or tried to, by the monotonic clock."""
        self._end = threading.Event()

    def run(self) -> None:
        """Loop until `stop`."""
        self._loop.start()
        while not self._end.is_set():
            self.looked = time.monotonic()
            seen = self._notifier.version(RECONCILER)
            wait = _LONGEST_WAIT
            try:
                with self._transitions.metrics.reconcile.time():
                    wait = self.step()
            except CellsparseError as error:
                _LOG.warning("the runs cannot be reconciled now: %s", error.message)
                self._end.wait(_REPEAT_SECONDS)
            # So that under load half of the time is left for others, and the next pass has more to do at once.
            self._end.wait(min(time.monotonic() - self.looked, _LONGEST_GATHER))
            self._notifier.wait(RECONCILER, seen, wait)

    def stop(self) -> None:
        """End the loop and detach from all attempts; if the trainers end too, record that in the runs. Idempotent."""
        if self._end.is_set():
            return
        self._end.set()
        self._notifier.notify(RECONCILER)
        self.join(_END_SECONDS)
        for watcher in self._watchers.values():
            watcher.detach()
        for watcher in self._watchers.values():
            watcher.join(_END_SECONDS)
        self._loop.stop()
        if not self._launcher.stops_trainers:
            return
        for run in self._transitions.active():
            outcome = self._outcome(run.run_id)
            if outcome is None:
                self._transitions.interrupt(run.run_id, "The orchestrator was stopped, and its trainers with it.")

    def step(self) -> float:
        """Reconcile the runs that need it; return how long the next pass may wait, seconds."""
        began = time.monotonic()
        whole = self._whole or began >= self._next_whole
        self._whole = True  # unless this pass comes to its end
        self._transitions.confirm_lease()
        self._sweep()
        told = self._notifier.take(RECONCILER) | self._unsettled
        wait = self._pass(None if whole else told)
        self._whole = False
        if whole:
            self._next_whole = began + _WHOLE_SECONDS
        return max(wait, 0.0)

    def _pass(self, chosen: set[str] | None) -> float:
        """Reconcile chosen runs, or all, and begin those that are next in line."""
        began = time.monotonic()
        self._ends, self._begins = [], []
        active = self._transitions.active(chosen)
        for run in active:
            if not run.gave_up_its_slot:
                self._reconcile_safely(run, slot_free=True)
        self._end_attempts()
        self._forget_all_but({run.run_id for run in active}, chosen)
        # An attempt that waits for its project's quota leaves its slot to the runs of others.
        queued = [one.attempt for one in self._watchers.values() if one.no_quota]
        free = self._limits.slots - self._transitions.count_holding() + len(queued)
        for run in active:
            if run.gave_up_its_slot:
                self._reconcile_safely(run, slot_free=free > 0)
                free -= run.run_id in self._begins
        # A GPU that becomes free belongs to the attempts that wait for one. A younger run's pod might take it first.
        full = {one.attempt.backend for one in self._watchers.values() if one.no_room}
        spent = {(attempt.backend, attempt.project_id) for attempt in queued}
        for run in self._transitions.next_in_line(free, full, spent):
            self._reconcile_safely(run, slot_free=True)
        self._begin_attempts()
        looked_at = {run.run_id for run in active}.union(self._begins)
        self._unsettled = {run_id for run_id in looked_at if not self._settled(run_id)}
        return self._rest(active, free, time.monotonic() - began)

    def _settled(self, run_id: str) -> bool:
        """Whether a watcher will tell when something happens to a run."""
        watcher = self._watchers.get(run_id)
        return watcher is not None and not watcher.finished

    def _rest(self, active: list[UnfinishedRun], free: int, seconds: float) -> float:
        """Return how long the next pass may wait after one that took some seconds."""
        pauses = [(run.retry_at - now()).total_seconds() for run in active if run.retry_at is not None]
        if self._gate is not None and self._gate.asking:
            pauses = []  # nothing begins before the gate has woken this loop
        elif free <= 0:
            pauses = [pause for pause in pauses if pause > 0]  # one without a slot may be over for long
        return min([max(min(_REST_SHARE * seconds, _LONGEST_REST), _LONGEST_WAIT), *pauses])

    def _sweep(self) -> None:
        """Now and then, let the launcher remove what belongs to no attempt under way."""
        if time.monotonic() < self._next_sweep:
            return
        if self._launcher.keep_only(self._transitions.under_way, self._transitions.unended):
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS

    def _forget_all_but(self, active: set[str], chosen: set[str] | None) -> None:
        """Drop the watchers of those of the chosen runs that have ended."""
        for run_id in (set(self._watchers) if chosen is None else chosen) - active:
            watcher = self._watchers.pop(run_id, None)
            if watcher is not None:
                watcher.detach()
            self._not_before.pop(run_id, None)

    def _reconcile_safely(self, run: UnfinishedRun, *, slot_free: bool) -> None:
        try:
            self._reconcile(run, slot_free=slot_free)
        except CellsparseError:
            raise  # as in `_together`
        except Exception:  # noqa: BLE001 - logged whole; one run that cannot be handled must not stop the others
            _LOG.exception("run %s cannot be reconciled", run.run_id)

    def _reconcile(self, run: UnfinishedRun, *, slot_free: bool) -> None:
        watcher = self._watchers.get(run.run_id)
        if watcher is not None and watcher.attempt.number != run.attempts:
            watcher = None
        rests = self._rests(run)
        begins = run.state in _BEGINNING and slot_free and not rests and not run.cancel_requested
        facts = Facts(
            state=run.state,
            attempts=run.attempts,
            max_attempts=run.max_attempts,
            interruptions=run.interruptions,
            cancel_requested=run.cancel_requested,
            slot_free=slot_free,
            pause_over=slot_free and not rests,
            store_ready=begins and self._store_ready(run),
            watched=watcher is not None and not watcher.finished,
            stopping=watcher is not None and watcher.stopping,
            has_fewer=watcher is not None and watcher.attempt.has_fewer,
            outcome=watcher.outcome if watcher is not None and watcher.finished else None,
        )
        self._act(run, facts, decide(facts))

    def _rests(self, run: UnfinishedRun) -> bool:
        """Whether the pause before a run's next attempt goes on; one beyond the limit is of a clock that jumped."""
        left = (run.retry_at - now()).total_seconds() if run.retry_at is not None else 0.0
        return 0.0 < left <= self._limits.longest_pause

    def _store_ready(self, run: UnfinishedRun) -> bool:
        """Whether the store answers; if not, the run that would begin says so."""
        if self._gate is None or self._gate.ready():
            return True
        if self._gate.waiting:
            self._transitions.set_pausing(run.run_id, self._gate.waiting)
        return False

    def _act(self, run: UnfinishedRun, facts: Facts, decision: Decision) -> None:
        if decision.action is Action.BEGIN:
            self._begins.append(run.run_id)
        elif decision.action is Action.WATCH:
            # Do not replace a watcher that could not store its events at once: the database needs a moment.
            if time.monotonic() >= self._not_before.get(run.run_id, 0.0):
                self._watch(self._transitions.newest_attempt(run.run_id))
        elif decision.action is Action.STOP:
            self._watchers[run.run_id].end_attempt()
        elif decision.action in (Action.RETRY, Action.END):
            self._conclude(run, facts, decision)

    def _conclude(self, run: UnfinishedRun, facts: Facts, decision: Decision) -> None:
        if facts.outcome is None:
            self._transitions.end_run(run.run_id, decision)
            return
        failures = max(1, run.attempts - run.interruptions if decision.counts else run.interruptions + 1)
        if facts.outcome.preempted:
            failures = 1  # the cluster's queue says when the next one begins
        if facts.outcome.reason == common_pb2.FAILURE_REASON_STORAGE and self._gate is not None:
            self._gate.suspect()
        pause = run_states.backoff(failures, self._limits.first_pause, self._limits.longest_pause)
        end = AttemptEnd(
            run_id=run.run_id, number=run.attempts, outcome=facts.outcome, decision=decision, pause_seconds=pause
        )
        self._ends.append(end)

    def _end_attempts(self) -> None:
        """End the attempts whose ends this pass found."""
        for first in range(0, len(self._ends), _MOST_AT_ONCE):
            ends = self._ends[first : first + _MOST_AT_ONCE]
            for end in self._together(ends, self._transitions.end_attempts):
                self._launcher.release(end.run_id, end.number)
                self._watchers.pop(end.run_id, None)
                self._not_before.pop(end.run_id, None)
                state = run_states.state_name(end.decision.state)
                _LOG.info("run %s is %s: %s", end.run_id, state, end.decision.message)

    def _begin_attempts(self) -> None:
        """Begin the next attempts of the runs that this pass found ready."""
        for first in range(0, len(self._begins), _MOST_AT_ONCE):
            self._begun = []
            self._together(self._begins[first : first + _MOST_AT_ONCE], self._begin_together)
            for attempt in self._begun:
                self._watch(attempt)

    def _begin_together(self, run_ids: list[str]) -> None:
        self._begun += self._transitions.begin_attempts(run_ids)

    def _together(self, items: list[_Item], act: Callable[[list[_Item]], None]) -> list[_Item]:
        """Act on several runs in one transaction, or on each alone if one of them cannot be handled.

        Returns:
            Those that were handled.
        """
        try:
            act(items)
        except CellsparseError:
            raise  # the database is away: for these runs as for all others
        except Exception:  # noqa: BLE001 - logged whole; one run that cannot be handled must not stop the others
            if len(items) == 1:
                _LOG.exception("%s cannot be handled", items[0])
                return []
            return [done for item in items for done in self._together([item], act)]
        return items

    def _watch(self, attempt: RunAttempt) -> None:
        self._not_before[attempt.run_id] = time.monotonic() + _REPEAT_SECONDS
        watcher = AttemptWatcher(
            attempt,
            self._launcher,
            self._timeouts,
            Callbacks(
                store_event=self._transitions.store_event,
                starting=self._transitions.set_trainer,
                specify=self._specify,
                waiting=self._transitions.set_waiting,
                resized=self._transitions.set_nodes,
                issuer=self._issuer,
                changed=lambda: self._notifier.tell(RECONCILER, attempt.run_id),
                trace=self._trace,
            ),
            self._loop,
        )
        self._watchers[attempt.run_id] = watcher
        watcher.start()

    def _outcome(self, run_id: str) -> object:
        watcher = self._watchers.get(run_id)
        return None if watcher is None else watcher.outcome
