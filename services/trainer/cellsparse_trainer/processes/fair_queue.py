"""A bounded queue that is fair between owners, and in which whoever is refused keeps the place in line.

Owners take turns. Within an owner, whoever asked first is first. A queue that is full refuses, and says when to come
back; a client that comes back is as old as when it first asked. So it is not starved by those that ask more often, or
that are answered just when a place becomes free. A newcomer may push out the youngest entry of an owner that has more
waiting.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cellsparse_common.errors import Busy, CellsparseError, Unavailable
from cellsparse_common.rpc.callers import Caller

SHORTEST_RETRY, LONGEST_RETRY = 0.5, 30.0
"""Bounds of the pause that a refusal asks for, seconds."""
_ABSENCE = 10.0
"""Seconds beyond the pause for which a place in line is kept."""
_MOST_PLACES = 10_000
_TICK = 1e-6
_MEMORY = 0.8
"""Weight of what is known already of how long an entry takes."""


@dataclass(eq=False, kw_only=True)
class Entry:
    """Something to do for a caller."""

    caller: Caller
    work: Any
    """What to do."""
    group: Hashable = None
    """Entries of equal groups may be done together; None: alone."""
    patient: bool = False
    """Waits however long the queue is, and does not count: for callers whose number is bounded elsewhere."""
    what: str = "prediction"
    """What it is called in messages."""
    since: float = 0.0
    """When its caller first asked for it, as the queue's clock has it."""
    answer: "Future[Any]" = field(default_factory=Future)
    gone: bool = False
    """Whether nobody waits for it any more."""
    when_gone: Callable[[], None] = lambda: None
    """Called when its caller goes while it is being done."""


@dataclass(frozen=True)
class _Place:
    since: float
    until: float


class FairQueue:
    """A queue of entries.

    Args:
        limit: Entries that may wait.
        servers: How many entries, or groups of entries, are done at once.
        clock: Tells the time, seconds.
    """

    def __init__(self, limit: int, servers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = limit
        self._servers = servers
        self._changed = threading.Condition()
        self._waiting: list[Entry] = []
        self._places: OrderedDict[str, deque[_Place]] = OrderedDict()
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._turn = 0
        self._newest = 0.0
        self._seconds_each = 0.0
        self._closed = False

    def join(self, entry: Entry, seconds: float) -> None:
        """Let an entry wait.

        Args:
            entry: The entry.
            seconds: How long its caller waits.

        Raises:
            Busy: The queue is full, or the caller would wait in vain.
            Unavailable: The queue is closed.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("The service is stopping; try again in a moment.")
            now = self._clock()
            known = self._take_place(entry.caller.member, now)
            # No two are equally old, however coarse the clock.
            self._newest = max(now, self._newest + _TICK) if known is None else self._newest
            entry.since = self._newest if known is None else known
            if not entry.patient:
                self._make_room(entry, newcomer=known is None)
                wait = self._ahead(entry) * self._seconds_each / self._servers
                if wait > seconds:
                    raise self._refusal(entry, wait - seconds)
            self._waiting.append(entry)
            self._changed.notify()

    def take(self, most: int, seconds: float) -> list[Entry]:
        """Return the entries to be done next: one, or several of a group; none if nothing came for some seconds.

        Args:
            most: Most entries.
            seconds: How long to wait for one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, seconds)
            if not self._waiting or self._closed:
                return []
            first = self._next(self._waiting)
            found = [first]
            while first.group is not None and len(found) < most:
                like = [entry for entry in self._waiting if entry.group == first.group]
                if not like:
                    break
                found.append(self._next(like))
            return found

    def leave(self, entry: Entry, error: CellsparseError) -> None:
        """Answer an entry, unless it is, with an error because its caller is gone; its place becomes free."""
        with self._changed:
            if entry in self._waiting:
                self._waiting.remove(entry)
            entry.gone = True
            _fail(entry, error)
        entry.when_gone()

    def answer(self, entry: Entry, answer: Any) -> None:
        """Answer an entry, unless its caller is gone, with a value or an exception."""
        with self._changed:
            if isinstance(answer, BaseException):
                _fail(entry, answer)
            elif not entry.answer.done():
                entry.answer.set_result(answer)

    def note(self, seconds: float, entries: int) -> None:
        """Note how long it took to do some entries together."""
        with self._changed:
            each = seconds / entries
            known = self._seconds_each
            self._seconds_each = each if not known else _MEMORY * known + (1 - _MEMORY) * each

    def close(self) -> None:
        """Refuse everything from now on, also what waits."""
        with self._changed:
            self._closed = True
            for entry in self._waiting:
                _fail(entry, Unavailable("The service is stopping; try again in a moment."))
            self._waiting.clear()
            self._changed.notify_all()

    @property
    def length(self) -> int:
        """How many entries wait."""
        with self._changed:
            return len(self._waiting)

    @property
    def demand(self) -> int:
        """How many entries wait, with those that were refused and may still come back."""
        with self._changed:
            now = self._clock()
            return len(self._waiting) + sum(p.until >= now for kept in self._places.values() for p in kept)

    def _next(self, among: list[Entry]) -> Entry:
        """Remove and return the oldest entry of the owner whose last turn is the longest ago."""
        chosen = min(among, key=lambda entry: (self._turns.get(entry.caller.owner, 0), entry.since))
        self._waiting.remove(chosen)
        self._turn += 1
        self._turns[chosen.caller.owner] = self._turn
        self._turns.move_to_end(chosen.caller.owner)
        while len(self._turns) > _MOST_PLACES:
            self._turns.popitem(last=False)
        return chosen

    def _make_room(self, entry: Entry, *, newcomer: bool) -> None:
        counted = [other for other in self._waiting if not other.patient]
        loads = Counter(other.caller.owner for other in counted)
        own = loads[entry.caller.owner]
        share = self._limit / len(loads.keys() | {entry.caller.owner})
        if len(counted) < self._limit:
            # Half of the queue is for everybody. In the other half those that were refused come first.
            away = sum(map(len, self._places.values()))
            if newcomer and own >= share / 2 and len(counted) >= self._limit / 2 and len(counted) + away >= self._limit:
                raise self._refusal(entry)
            return
        most = max(loads.values(), default=0)
        heavy = [other for other in counted if loads[other.caller.owner] == most]
        if most > own + 1:
            self._push_out(heavy)
            return
        younger = [o for o in counted if o.caller.owner == entry.caller.owner and o.since > entry.since]
        if not younger:
            raise self._refusal(entry)
        self._push_out(younger)

    def _push_out(self, among: Iterable[Entry]) -> None:
        youngest = max(among, key=lambda entry: entry.since)
        self._waiting.remove(youngest)
        youngest.gone = True
        _fail(youngest, self._refusal(youngest))

    def _refusal(self, entry: Entry, late: float = 0.0) -> Busy:
        """Return the refusal of an entry, and keep its place in line.

        Args:
            entry: The entry.
            late: Seconds by which it would be too late; 0: there is no room.
        """
        now = self._clock()
        before = self._older(entry.since)
        each = self._seconds_each or SHORTEST_RETRY
        wait = late or (before - self._limit + 1) * each / self._servers
        retry = min(max(wait, SHORTEST_RETRY), LONGEST_RETRY)
        places = self._places.setdefault(entry.caller.member, deque())
        places.append(_Place(entry.since, now + 2 * retry + _ABSENCE))
        while len(self._places) > _MOST_PLACES:
            self._places.popitem(last=False)
        why = "longer than its deadline" if late else f"and {self._limit} may wait at once"
        return Busy(
            f"The {entry.what} is number {before + 1} in line, {why}. Try again in {retry:.1f} s; the place is kept.",
            retry_seconds=retry,
        )

    def _take_place(self, member: str, now: float) -> float | None:
        """Return since when a client has waited, whose place was kept; None if it has none."""
        for other in [name for name, kept in self._places.items() if all(place.until < now for place in kept)]:
            del self._places[other]
        places = self._places.get(member)
        if not places:
            return None
        since = places.popleft().since
        if not places:
            del self._places[member]
        return since

    def _ahead(self, entry: Entry) -> int:
        """Return how many entries will be done before one, at most."""
        before = Counter(other.caller.owner for other in self._waiting)
        own = sum(o.caller.owner == entry.caller.owner and o.since < entry.since for o in self._waiting)
        del before[entry.caller.owner]
        return own + sum(min(count, own + 1) for count in before.values())

    def _older(self, since: float) -> int:
        """Return how many have asked before, of those that wait and those that were told to come back."""
        waiting = sum(other.since < since for other in self._waiting)
        return waiting + sum(place.since < since for kept in self._places.values() for place in kept)


def _fail(entry: Entry, error: BaseException) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
