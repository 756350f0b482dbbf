"""Group commit: one thread commits all items that have come meanwhile together.

A commit costs the same for one row as for fifty, and SQLite lets one writer in at a time. Rows that come while another
commit is going on are therefore written together by the next one (docs/scale.md). PostgreSQL has many writers and would
not need it; both share this code, because an item that comes alone is committed at once. A caller may wait, or take a
future, so that one loop can report for a thousand trainings.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from cellsparse_common.errors import Unavailable

Item = TypeVar("Item")
_IDLE_SECONDS = 10.0
"""How long the thread waits for more before it ends."""


@dataclass(frozen=True, kw_only=True)
class _Ticket(Generic[Item]):
    """An item that waits."""

    item: Item
    future: "Future[None]"
    context: Context
    """Of who posted it: a commit is part of the trace that its first item belongs to."""


class GroupWriter(Generic[Item]):
    """Commits an item that comes alone at once; items that arrive during a commit form the next group.

    Args:
        commit: Commits all of some items or, where it raises, none of them. Committing one again must be harmless.
        most: Largest group: the sum of its items' sizes. A larger item is a group of its own.
        name: Of the thread.
        size: Returns the size of an item.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], None],
        most: int,
        name: str,
        size: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        self._commit = commit
        self._most = most
        self._name = name
        self._size = size
        self._changed = threading.Condition()
        self._waiting: list[_Ticket[Item]] = []
        self._running = False

    def post(self, item: Item) -> "Future[None]":
        """Take an item; the future has no value once it is committed, else what `commit` raised for it.

        Items of one caller are committed in the order in which they were posted. A future that is cancelled in time is
        left out.
        """
        future: Future[None] = Future()
        with self._changed:
            self._waiting.append(_Ticket(item=item, future=future, context=copy_context()))
            if self._running:
                self._changed.notify()
            else:
                self._running = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def submit(self, item: Item, seconds: float) -> None:
        """Return when the item is committed; raise what `commit` raises for it.

        Raises:
            Unavailable: It was not committed within some seconds; it may be later.
        """
        future = self.post(item)
        try:
            future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise Unavailable(f"The database was busy for {seconds:g} s; try again.") from None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._waiting, _IDLE_SECONDS):
                    self._running = False
                    return
                count = self._next_group()
                taken, self._waiting = self._waiting[:count], self._waiting[count:]
            self._commit_safely([ticket for ticket in taken if ticket.future.set_running_or_notify_cancel()])

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
        if not tickets:
            return
        try:
            tickets[0].context.run(self._commit, [ticket.item for ticket in tickets])
        except Exception as error:  # noqa: BLE001 - raised again where the item came from
            if len(tickets) > 1 and not isinstance(error, Unavailable):  # the database is away for each as for all
                for ticket in tickets:
                    self._commit_safely([ticket])
                return
            for ticket in tickets:
                ticket.future.set_exception(error)
        else:
            for ticket in tickets:
                ticket.future.set_result(None)
