"""The lease on a database: of several orchestrators one leads, and the others stand by.

It is a row. `fence` grows with every new holder, and every transaction that writes looks whether it is still its own.
So a holder that was paused, and whose lease another one has taken meanwhile, writes nothing more. `beat` grows while
the holder lives. Clocks are compared nowhere. A standby takes over when the row was the same in `LOOKS` looks in a
row, when the holder has given the lease back, or when the holder's process is known to have ended.
"""

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.db.holder import Holder, has_ended, parse_holder
from cellsparse_orchestrator.db.tables import LeaseRow

NAME = "orchestrator"
LOOKS = 10
"""A holder counts as dead after so many looks without a sign of life. It gives one in the time of one look."""


_COLUMNS = LeaseRow.__table__.c
# A lock that goes together with those of other writes and with `renew`, and not with `take`.
_FENCE = select(_COLUMNS.fence).where(_COLUMNS.name == NAME).with_for_update(read=True, key_share=True)
_LOOK = select(_COLUMNS.fence, _COLUMNS.beat, _COLUMNS.holder).where(_COLUMNS.name == NAME)


class LeaseLost(Unavailable):
    """Another orchestrator has taken the lease: this one writes nothing more."""

    def __init__(self) -> None:
        super().__init__("This orchestrator does not lead any more, another one has taken over; try again.")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The lease as a transaction saw it."""

    fence: int
    beat: int
    holder: str
    """Empty: nobody holds it."""


class Watch:
    """Counts looks at the lease, and says when it may be taken.

    Args:
        here: The process that looks.
    """

    def __init__(self, here: Holder) -> None:
        self._here = here
        self._last: Seen | None = None
        self._looks = 0

    def may_take(self, seen: Seen) -> bool:
        """Take a look into account; return whether the lease may be taken if it is still as seen."""
        self._looks = self._looks + 1 if seen == self._last else 0
        self._last = seen
        holder = parse_holder(seen.holder)
        return not seen.holder or self._looks >= LOOKS or (holder is not None and has_ended(holder, self._here))

    def forget(self) -> None:
        """Count from the start: the database did not answer, so the holder could give no sign of life either."""
        self._last, self._looks = None, 0


def look(session: Session) -> Seen:
    """Return the lease."""
    row = session.connection().execute(_LOOK).one()  # at each pass of the reconciler; see `check`
    return Seen(fence=row.fence, beat=row.beat, holder=row.holder)


def take(session: Session, seen: Seen, holder: Holder) -> int | None:
    """Take the lease if it is still as seen; return the new fence. Waits for the writes of the holder before."""
    row = session.scalars(select(LeaseRow).where(LeaseRow.name == NAME).with_for_update()).one()
    if Seen(fence=row.fence, beat=row.beat, holder=row.holder) != seen:
        return None
    row.fence, row.beat, row.holder = row.fence + 1, 0, holder.to_json()
    return row.fence


def check(session: Session, fence: int) -> None:
    """Make sure that the lease is still ours, to the end of this transaction.

    Raises:
        LeaseLost: It is not.
    """
    # Not through the session, which would take longer than all else that a transaction costs.
    if session.connection().scalar(_FENCE) != fence:
        raise LeaseLost


def renew(session: Session, fence: int) -> None:
    """Give a sign of life; raises as `check`."""
    _change(session, fence, beat=LeaseRow.beat + 1)


def give_back(session: Session, fence: int) -> None:
    """Let another orchestrator take the lease at once; raises as `check`."""
    _change(session, fence, holder="")


def _change(session: Session, fence: int, **values: object) -> None:
    query = update(LeaseRow).where(LeaseRow.name == NAME, LeaseRow.fence == fence).values(**values)
    found = session.execute(query.returning(LeaseRow.fence).execution_options(synchronize_session=False))
    if found.one_or_none() is None:
        raise LeaseLost
