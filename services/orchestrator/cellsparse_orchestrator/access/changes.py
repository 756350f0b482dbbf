"""The record of changes: who called what, when, from where, and with what result."""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Table, delete, insert, select

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator.caller import Caller
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.group_writer import GroupWriter
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ChangeRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_proto.v1 import access_pb2, common_pb2

_LOG = logging.getLogger(__name__)
_TIDY_SECONDS = 3600.0
_MOST_AT_ONCE = 100
"""Most lines written in one transaction."""
_ADD_SECONDS = 60.0
"""Longest wait of a line for those before it."""
_ADD = insert(cast("Table", ChangeRow.__table__))
_LONGEST = 2000
"""Most characters of a text; the ids of 100 runs take 1,700."""


class Changes:
    """The table of changes.

    Args:
        database: The database.
        days: How long a line is kept.
    """

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days
        self._lock = threading.Lock()
        self._tidy_at = 0.0
        self._adding = GroupWriter(self._insert, _MOST_AT_ONCE, "changes")

    def add(self, caller: Caller, method: str, subject: str, source: str, result: str) -> None:
        """Record a call. What it changed stays changed even if that fails, which is logged.

        Args:
            caller: Who.
            method: The call, as Service/Method.
            subject: What it was about.
            source: Where it came from.
            result: Name of its gRPC status.
        """
        row = {
            "time": now(),
            "token_id": caller.token_id,
            "name": caller.name,
            "project_id": caller.project_id or "",
            "method": method,
            "subject": subject[:_LONGEST],
            "source": source[:_LONGEST],
            "result": result,
        }
        try:
            self._adding.submit(row, _ADD_SECONDS)
        except CellsparseError as error:
            _LOG.error("%s of %s (%s) is not recorded: %s", method, caller.name, result, error.message)

    def _insert(self, rows: Sequence[dict[str, Any]]) -> None:
        with self._database.write() as session:
            session.connection().execute(_ADD, rows)
            if self._is_time_to_tidy():
                session.execute(delete(ChangeRow).where(ChangeRow.time < now() - timedelta(days=self._days)))

    def page(self, page: common_pb2.PageRequest, token_id: str, project_id: str) -> tuple[list[access_pb2.Change], str]:
        """Return a page, newest first, of all or of one token's or project's, and the token of the next page."""
        before = decode_token("changes", page.page_token)
        query = select(ChangeRow).order_by(ChangeRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(ChangeRow.number < before)
        if token_id:
            query = query.where(ChangeRow.token_id == token_id)
        if project_id:
            query = query.where(ChangeRow.project_id == project_id)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        shown = rows[: page_size(page)]
        token = encode_token("changes", shown[-1].number) if len(rows) > len(shown) else ""
        return [_to_proto(row) for row in shown], token

    def _is_time_to_tidy(self) -> bool:
        with self._lock:
            if time.monotonic() < self._tidy_at:
                return False
            self._tidy_at = time.monotonic() + _TIDY_SECONDS
            return True


def _to_proto(row: ChangeRow) -> access_pb2.Change:
    return access_pb2.Change(
        time=timestamp(row.time),
        token_id=row.token_id,
        name=row.name,
        project_id=row.project_id,
        method=row.method,
        subject=row.subject,
        source=row.source,
        result=row.result,
    )
