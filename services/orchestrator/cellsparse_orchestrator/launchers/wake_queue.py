"""Calls that wait for a trainer which an autoscaler stopped because nobody needed it.

The number of them is what makes the autoscaler start one (metric `cellsparse_predictions_waiting`). Once a trainer
answers they go on one after the other, in the order in which they came.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import grpc

from cellsparse_common.errors import Busy, Cancelled, Starting

FIRST_GUESS_SECONDS = 60.0
"""How long a trainer takes to start, until one has."""
_SHORTEST_SECONDS, _LONGEST_SECONDS = 5.0, 30.0
"""Bounds of the pause that a refusal asks for. Somebody who waits sees more of the start than who comes back."""
_ABSENCE_SECONDS = 30.0
"""How much longer than that pause a caller who was told to come back still counts as waiting."""
_MARGIN, _MARGIN_SECONDS = 0.1, 5.0
"""Share of a call's time, and most of it, by which a refusal comes before the caller's own deadline."""


class Sleep(NamedTuple):
    """How trainers are of which none answers."""

    waking: bool
    """Whether calls wait for one to start, or were told to come back for it."""
    message: str
    """What to tell people."""


class Waiter:
    """A call that may have to wait.

    Args:
        seconds: How long, at most.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = max(0.0, seconds - min(_MARGIN * seconds, _MARGIN_SECONDS))
        self.gone = threading.Event()
        self.when_gone: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """Give up: nobody waits for the call any more."""
        self.gone.set()
        self.when_gone()


class WakeQueue:
    """The calls that wait for one backend's trainers.

    Args:
        name: The backend.
        seconds: Longest wait of a call.
        room: How many calls of all backends may wait; each keeps a thread of the server.
        clock: Tells the time, seconds.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        room: threading.Semaphore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._room = room
        self._clock = clock
        self._changed = threading.Condition()
        self._line: deque[Waiter] = deque()
        self._awake = False
        self._problem = ""
        self._since: float | None = None
        self._wanted_until = 0.0
        self._guess = FIRST_GUESS_SECONDS
        self.on_demand: Callable[[], None] = lambda: None
        """Called when a call begins to wait."""

    def note(self, *, awake: bool, problem: str = "") -> None:
        """Take notice of how the trainers are.

        Args:
            awake: Whether one answers.
            problem: What keeps all of them from starting, if that is known.
        """
        with self._changed:
            if awake and self._since is not None:
                self._guess = self._clock() - self._since
            if awake:
                self._since, self._wanted_until = None, 0.0
            self._awake, self._problem = awake, problem
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many calls wait; 1 while nobody does but somebody was told to come back."""
        with self._changed:
            return len(self._line) or int(self._clock() < self._wanted_until)

    @property
    def state(self) -> Sleep:
        """How it is while no trainer answers."""
        with self._changed:
            wanted = bool(self._line) or self._clock() < self._wanted_until
            if self._problem:
                return Sleep(wanted, f"asleep, and none can start: {self._problem}")
            if self._since is None or not wanted:
                return Sleep(False, "asleep: the first prediction starts one")
            return Sleep(True, f"asleep, and one is starting {self._rest()}; calls that wait: {len(self._line)}")

    @contextmanager
    def turn(self, waiter: Waiter, answers: Callable[[], bool]) -> Iterator[Callable[[Any], None]]:
        """Wait until a trainer answers and the calls before have gone on; give what to call with the call once begun.

        That lets the next one go on as soon as a trainer has put this one into its queue.

        Args:
            waiter: The call.
            answers: Asks the trainers whether one answers now.

        Raises:
            Starting: None answered in time.
            Busy: Too many calls wait.
            Cancelled: Nobody waits for the call any more.
        """
        with self._changed:
            free = self._awake and not self._line
        if free and answers():
            yield lambda _: None
            return
        if not self._room.acquire(blocking=False):
            self._want()
            raise Busy(
                f"The {self._name} trainers were asleep, and as many calls as may wait for trainers do.",
                retry_seconds=_LONGEST_SECONDS,
            )
        try:
            self._join(waiter, awake=not free)
            self._wait(waiter)
            yield lambda call: self._hand_over(waiter, call)
        finally:
            self._leave(waiter)

    def _join(self, waiter: Waiter, *, awake: bool) -> None:
        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        with self._changed:
            self._awake = self._awake and awake
            self._line.append(waiter)
            if not self._awake and self._since is None:
                self._since = self._clock()
        waiter.when_gone = wake
        self.on_demand()

    def _wait(self, waiter: Waiter) -> None:
        def over() -> bool:
            return waiter.gone.is_set() or (self._awake and self._line[0] is waiter)

        with self._changed:
            in_time = self._changed.wait_for(over, min(waiter.seconds, self._seconds))
            if waiter.gone.is_set():
                raise Cancelled(f"Nobody waits for the call to the {self._name} trainers any more.")
            if not in_time:
                raise self._refusal(waiter)

    def _leave(self, waiter: Waiter) -> None:
        with self._changed:
            if waiter in self._line:
                self._line.remove(waiter)
                self._room.release()
            if not self._line and not self._awake and self._clock() >= self._wanted_until:
                self._since = None  # nobody wants them any more
            self._changed.notify_all()

    def _hand_over(self, waiter: Waiter, call: Any) -> None:
        with suppress(grpc.RpcError):  # whoever waits for its answer is told
            call.initial_metadata()
        self._leave(waiter)

    def _want(self) -> None:
        with self._changed:
            self._wanted_until = self._clock() + _LONGEST_SECONDS + _ABSENCE_SECONDS
            if not self._awake and self._since is None:
                self._since = self._clock()
        self.on_demand()

    def _refusal(self, waiter: Waiter) -> Starting:
        """Return the refusal of a call that waits, and go on counting it until it comes back."""
        retry = min(max(self._left(), _SHORTEST_SECONDS), _LONGEST_SECONDS)
        self._wanted_until = self._clock() + retry + _ABSENCE_SECONDS
        place = self._line.index(waiter) + 1
        how = f"none can start: {self._problem}" if self._problem else f"one is starting {self._rest()}"
        return Starting(
            f"The {self._name} trainers were asleep, and {how.removesuffix('.')}. This call was number {place} in "
            f"line; try again in {retry:.0f} s.",
            retry_seconds=retry,
        )

    def _left(self) -> float:
        return self._guess - (self._clock() - self._since) if self._since is not None else self._guess

    def _rest(self) -> str:
        left = self._left()
        if left >= 1:
            return f"(about {left:.0f} s)"
        return f"(after {self._guess - left:.0f} s; about {self._guess:.0f} s are usual)"
