"""Work that many threads have at the same time, done by one of them for all."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cellsparse_common.errors import Unavailable

Piece = TypeVar("Piece")


@dataclass(eq=False)
class _Ticket(Generic[Piece]):
    piece: Piece
    called: threading.Event = field(default_factory=threading.Event)
    """Set when the piece is done, or when it is this thread's turn to do the work."""
    done: bool = False
    error: Exception | None = None


class GroupCommit(Generic[Piece]):
    """Does alone what is handed in alone; what is handed in meanwhile is done next, all at once.

    So the cost of a piece falls as more threads have some, and nobody waits for others to come.

    Args:
        do: Does all of some pieces or, where it raises, none of them; doing one again must be harmless.
        most: How many at once.
    """

    def __init__(self, do: Callable[[Sequence[Piece]], None], most: int) -> None:
        self._do = do
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Ticket[Piece]] = []
        self._busy = False

    def submit(self, piece: Piece, seconds: float) -> None:
        """Return when the piece is done; raises what `do` raises about it.

        Raises:
            Unavailable: It was not done within some seconds; perhaps it will be.
        """
        ticket = _Ticket(piece)
        with self._lock:
            self._waiting.append(ticket)
            if not self._busy:
                self._busy = True
                ticket.called.set()
        if not ticket.called.wait(seconds):
            with self._lock:
                # Called or taken just now: then it is ours to do, or being done.
                if not ticket.called.is_set() and ticket in self._waiting:
                    self._waiting.remove(ticket)
            if not ticket.called.is_set():
                raise Unavailable(f"The database was busy for {seconds:g} s; try again.")
        if not ticket.done:
            self._lead()
        if ticket.error is not None:
            raise ticket.error

    def _lead(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            self._do_safely(taken)
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].called.set()
            for ticket in taken:
                ticket.done = True
                ticket.called.set()

    def _do_safely(self, tickets: Sequence[_Ticket[Piece]]) -> None:
        """Do all; where that fails, one after the other, so that one cannot stand in the way of others."""
        try:
            self._do([ticket.piece for ticket in tickets])
        except Unavailable as error:  # whatever is needed is away, for each as for all
            for ticket in tickets:
                ticket.error = error
        except Exception as error:  # noqa: BLE001 - raised again where it belongs
            if len(tickets) == 1:
                tickets[0].error = error
                return
            for ticket in tickets:
                self._do_safely([ticket])
