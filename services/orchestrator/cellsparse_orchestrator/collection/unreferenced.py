"""The table of objects that nothing refers to: since when that has been so."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import delete, select

from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import UnreferencedRow

_PAGE = 500


class Unreferenced:
    """Remembers from one collection to the next what was found without anything that refers to it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, keys: Sequence[str], now: datetime, *, keep: bool) -> dict[str, datetime]:
        """Return since when nothing refers to some keys; for those that are new here, `now`.

        Args:
            keys: At most a few hundred.
            now: The time.
            keep: Remember the new ones.
        """
        query = select(UnreferencedRow.key, UnreferencedRow.since).where(UnreferencedRow.key.in_(keys))
        with self._database.read() as session:
            known = dict(session.execute(query).tuples().all())
        new = [key for key in keys if key not in known]
        if new and keep:
            with self._database.write() as session:
                session.add_all(UnreferencedRow(key=key, since=now) for key in new)
        return {**dict.fromkeys(keys, now), **known}

    def forget(self, keys: Sequence[str]) -> None:
        """Forget keys that were removed, or that something refers to again."""
        if keys:
            with self._database.write() as session:
                session.execute(delete(UnreferencedRow).where(UnreferencedRow.key.in_(keys)))

    def forget_where(self, gone: Callable[[Sequence[str]], list[str]]) -> None:
        """Forget the keys that a function picks out of some of them."""
        last = ""
        while True:
            query = select(UnreferencedRow.key).where(UnreferencedRow.key > last).order_by(UnreferencedRow.key)
            with self._database.read() as session:
                keys = list(session.scalars(query.limit(_PAGE)))
            if not keys:
                return
            self.forget(gone(keys))
            last = keys[-1]
