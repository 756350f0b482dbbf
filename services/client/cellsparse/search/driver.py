"""Driver of a search: runs trials in parallel, each in its own thread."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cellsparse.client import Client
from cellsparse.errors import InvalidArgument
from cellsparse.reconnect import OnLost
from cellsparse.search.folder import TRIALS, begun, folder_of
from cellsparse.search.plan import SearchPlan
from cellsparse.search.report import SearchReport, make_report
from cellsparse.search.trial import OnWait, TrialWatcher
from cellsparse.search.trial_store import TrialRow, TrialStore, load_optuna

MOST_AT_ONCE = 64
LOOK_SECONDS = 1.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Callbacks of a driver."""

    on_trial: Callable[[TrialRow], None] = lambda _: None
    """Called in the driver's thread with a trial that begins, is resumed or has ended."""
    on_lost: OnLost = lambda *_: None
    """Called, in a trial's thread, with the error and the seconds left, when the orchestrator does not answer."""
    on_back: Callable[[], None] = lambda: None
    """Called, in a trial's thread, when it answers again."""
    on_wait: OnWait = lambda _: None
    """Called, in a trial's thread, with the refusal, once for each trial that waits for a quota of its project."""


def run(client: Client, plan: SearchPlan, *, at_once: int = 1, listener: Listener | None = None) -> SearchReport:
    """Run a search, or resume the one of that name, until all its trials have ended.

    An exception, such as KeyboardInterrupt, ends only the driver. Runs continue, and the next start finds them.

    Args:
        client: Client of the orchestrator; not closed.
        plan: The search (see `make_plan`).
        at_once: Number of parallel trials, 1 to 64. With fewer, later trials learn from more results.
        listener: Callbacks.

    Returns:
        The report; it is in the search's folder as well.

    Raises:
        InvalidArgument: `at_once` is out of range.
        FailedPrecondition: Optuna is not installed, or another process drives this search.
        AlreadyExists: A search of that name has another plan.
        CellsparseError: The orchestrator does not answer, or there is no such dataset.
    """
    if not 1 <= at_once <= MOST_AT_ONCE:
        raise InvalidArgument(f"at_once is {at_once}; allowed: 1 to {MOST_AT_ONCE}.", "at_once")
    load_optuna()  # before anything is written
    with begun(plan) as known:
        folder = folder_of(known.name)
        trials = TrialStore(known, folder / TRIALS)
        _Driver(client, known, trials, at_once, listener or Listener()).drive()
        report = make_report(known, trials.rows())
        report.write(folder)
    return report


class _Driver:
    """The threads of a search."""

    def __init__(self, client: Client, plan: SearchPlan, trials: TrialStore, at_once: int, listener: Listener) -> None:
        self._client = client
        self._plan = plan
        self._trials = trials
        self._at_once = at_once
        self._listener = listener
        self._ended: queue.Queue[_Worker] = queue.Queue()

    def drive(self) -> None:
        """Run all trials to their end, those of an earlier driver first."""
        left = self._trials.unfinished()
        working: set[_Worker] = set()
        try:
            while True:
                while len(working) < self._at_once and (number := self._next(left)) is not None:
                    repeated = self._trials.repeats(number)
                    self._listener.on_trial(self._trials.row(number))
                    if not repeated:
                        worker = _Worker(number, self._watcher(), self._ended)
                        working.add(worker)
                        worker.start()
                if not working:
                    return
                ended = self._wait()
                if ended is not None:
                    working.discard(ended)
                    ended.finish()
                    self._listener.on_trial(self._trials.row(ended.number))
        finally:
            _stop(working)

    def _next(self, left: list[int]) -> int | None:
        if left:
            number = left.pop(0)
            self._trials.settings(number)  # completes the choice that a killed driver left unfinished
            return number
        return self._trials.ask() if self._trials.begun() < self._plan.trials else None

    def _watcher(self) -> TrialWatcher:
        return TrialWatcher(
            connection=self._client.connection.another(),
            plan=self._plan,
            trials=self._trials,
            on_lost=self._listener.on_lost,
            on_back=self._listener.on_back,
            on_wait=self._listener.on_wait,
        )

    def _wait(self) -> "_Worker | None":
        try:
            return self._ended.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return None  # lets signals be handled between two waits


class _Worker(threading.Thread):
    """Thread of one trial. The process does not wait for it, because the run continues without it."""

    def __init__(self, number: int, watcher: TrialWatcher, ended: "queue.Queue[_Worker]") -> None:
        super().__init__(name=f"trial-{number}", daemon=True)
        self.number = number
        self._watcher = watcher
        self._ended = ended
        self._error: BaseException | None = None

    def run(self) -> None:
        """Watch the trial, and report its end."""
        try:
            self._watcher.follow(self.number)
        except BaseException as error:  # noqa: BLE001 - raised again in the driver's thread
            self._error = error
        self._ended.put(self)

    def finish(self) -> None:
        """Close the connection, and raise what ended the thread."""
        self._watcher.connection.close()
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Stop watching. The run continues."""
        self._watcher.connection.close()


def _stop(working: set[_Worker]) -> None:
    for worker in working:
        worker.leave()
    end = time.monotonic() + STOP_SECONDS
    for worker in working:
        if worker.is_alive():  # the last one's start may have been interrupted
            worker.join(max(0.0, end - time.monotonic()))
