"""Uploads that something was made of: they stay for a while, and do not count against a quota any more."""

from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from cellsparse_orchestrator.caller import new_owner
from cellsparse_orchestrator.db.tables import UploadRow

_AT_ONCE = 500


def use_uploads(session: Session, hashes: Sequence[str]) -> None:
    """Note that something was made of some of the caller's uploads.

    Args:
        session: The transaction that adds what was made.
        hashes: SHA-256 of the files.
    """
    for begin in range(0, len(hashes), _AT_ONCE):
        chosen = UploadRow.sha256.in_(hashes[begin : begin + _AT_ONCE])
        session.execute(update(UploadRow).where(chosen, UploadRow.project_id == (new_owner() or "")).values(used=True))
