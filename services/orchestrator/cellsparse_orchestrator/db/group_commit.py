"""Group commit: threads that write at the same time share one transaction.

A commit costs the same for one row as for fifty, and SQLite lets one writer in at a time. Rows that come while another
commit is going on are therefore written together by the next one: with 500 trainings, 158 events per second took 107
transactions (docs/scale.md). PostgreSQL has many writers and would not need it; both share this code, because an item
that comes alone is committed at once.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cellsparse_common.errors import Unavailable

Item = TypeVar("Item")


@dataclass(eq=False)
class _Ticket(Generic[Item]):
    item: Item
    called: threading.Event = field(default_factory=threading.Event)
    """Set when the item is committed, or when this thread is to commit the next group."""
    done: bool = False
    error: Exception | None = None


class GroupCommit(Generic[Item]):
    """Commits a single item at once; items that arrive during a commit form the next group.

    One of the waiting threads commits the group for all of them. Nobody waits for a group to fill.

    Args:
        commit: Commits all of some items or, where it raises, none of them. Committing one again must be harmless.
        most: Largest group: the sum of its items' sizes. A larger item is a group of its own.
        size: Returns the size of an item.
    """

    def __init__(
        self, commit: Callable[[Sequence[Item]], None], most: int, size: Callable[[Item], int] = lambda _: 1
    ) -> None:
        self._commit = commit
        self._most = most
        self._size = size
        self._lock = threading.Lock()
        self._waiting: list[_Ticket[Item]] = []
        self._busy = False

    def submit(self, item: Item, seconds: float) -> None:
        """Return when the item is committed; raise what `commit` raises for it.

        Raises:
            Unavailable: It was not committed within some seconds; it may be later.
        """
        ticket = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
            if not self._busy:
                self._busy = True
                ticket.called.set()
        if not ticket.called.wait(seconds):
            with self._lock:
                # A ticket that was called or taken at the last moment is ours to commit, or is being committed.
                if not ticket.called.is_set() and ticket in self._waiting:
                    self._waiting.remove(ticket)
            if not ticket.called.is_set():
                raise Unavailable(f"The database was busy for {seconds:g} s; try again.")
        if not ticket.done:
            self._lead()
        if ticket.error is not None:
            raise ticket.error

    def _lead(self) -> None:
        """Commit the next group and call the first thread of the one after it."""
        with self._lock:
            count = self._next_group()
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
        try:
            self._commit_safely(taken)
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].called.set()
            for ticket in taken:
                ticket.done = True
                ticket.called.set()

    def _next_group(self) -> int:
        """Return how many of those that wait the next group has."""
        total = 0
        for count, ticket in enumerate(self._waiting):
            total += self._size(ticket.item)
            if count and total > self._most:
                return count
        return len(self._waiting)

    def _commit_safely(self, tickets: Sequence[_Ticket[Item]]) -> None:
        """Commit all at once; if that fails, one by one, so that a bad item does not block the others."""
        try:
            self._commit([ticket.item for ticket in tickets])
        except Unavailable as error:  # the database is away for each as for all
            for ticket in tickets:
                ticket.error = error
        except Exception as error:  # noqa: BLE001 - raised again in the thread that it belongs to
            if len(tickets) == 1:
                tickets[0].error = error
                return
            for ticket in tickets:
                self._commit_safely([ticket])
