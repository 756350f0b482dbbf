"""Keeps apart what must not go on at the same time.

These are backups and collections, backups and the removal of old snapshots, and two removals.

Each says in the database what it does, commits that, and only then looks what others do. So of two that begin at the
same time at least one sees the other. What was killed holds nobody up for longer than half an hour.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from cellsparse_common.errors import CellsparseError, FailedPrecondition, Unavailable
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.collection.hold import BACKUP, PRUNE, held_until, hold, release
from cellsparse_orchestrator.db.session import Database

_LOG = logging.getLogger(__name__)
_HOLD = timedelta(minutes=30)
_RENEW_SECONDS = 300.0
_SURE_SECONDS = _HOLD.total_seconds() / 2


@contextmanager
def backing_up(database: Database) -> Iterator[Callable[[], None]]:
    """Keep collections and the removal of old snapshots off; give what raises Unavailable once that is not sure.

    Raises:
        FailedPrecondition: Old snapshots are being removed.
    """
    with _holding(database, _name(BACKUP)) as alive:
        until = held_until(database, PRUNE)
        if until is not None:
            raise FailedPrecondition(
                f"Old snapshots are being removed from the backup; try again after that, or after {until:%H:%M} UTC if "
                "it was killed."
            )
        yield alive


@contextmanager
def pruning(database: Database) -> Iterator[Callable[[], None]]:
    """Keep backups and other removals off; give what raises Unavailable once that is not sure.

    Of two removals that begin at the same time, both may be refused.

    Raises:
        FailedPrecondition: A backup is under way, or another removal.
    """
    own = _name(PRUNE)
    with _holding(database, own) as alive:
        until = held_until(database, BACKUP)
        if until is not None:
            raise FailedPrecondition(
                f"A backup is under way: old snapshots are removed after its end, or after {until:%H:%M} UTC if it was "
                "killed."
            )
        until = held_until(database, PRUNE, but_not=own)
        if until is not None:
            raise FailedPrecondition(
                f"Old snapshots are being removed by another process; try again after that, or after {until:%H:%M} UTC "
                "if it was killed."
            )
        yield alive


def _name(what: str) -> str:
    return f"{what}-{secrets.token_hex(4)}"


@contextmanager
def _holding(database: Database, name: str) -> Iterator[Callable[[], None]]:
    """Hold, and say so again and again."""
    end = threading.Event()
    renewed = [time.monotonic()]

    def renew() -> None:
        while not end.wait(_RENEW_SECONDS):
            began = time.monotonic()
            try:
                hold(database, name, now() + _HOLD)
                renewed[0] = began
            except CellsparseError as error:
                _LOG.warning("what this keeps off may begin soon: %s", error.message)

    def alive() -> None:
        if time.monotonic() - renewed[0] > _SURE_SECONDS:
            raise Unavailable("The database has not answered for too long to go on; try again.")

    hold(database, name, now() + _HOLD)
    thread = threading.Thread(target=renew, name="backup-hold", daemon=True)
    thread.start()
    try:
        yield alive
    finally:
        end.set()
        thread.join()
        release(database, name)
