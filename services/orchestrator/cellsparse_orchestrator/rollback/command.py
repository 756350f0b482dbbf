"""`python -m cellsparse_orchestrator rollback --to RELEASE`."""

import sys

from sqlalchemy import Connection

from cellsparse_common.errors import FailedPrecondition, InvalidArgument
from cellsparse_common.storage import ObjectStore, keys, open_store
from cellsparse_orchestrator.backup.restore import refuse_life
from cellsparse_orchestrator.db import first_release, migrate
from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.rollback.losses import losses
from cellsparse_orchestrator.rollback.unended import queue_again, remove_newer_checkpoints
from cellsparse_orchestrator.settings import OrchestratorSettings

RELEASES = {"0.1.0": "0003"}
"""The newest layout of each release."""


def run_rollback(settings: OrchestratorSettings, release: str, wait_seconds: float, *, lose: bool) -> int:
    """Bring database and store back to an earlier release; return the exit code.

    Args:
        settings: Database and store.
        release: The release, such as 0.1.0.
        wait_seconds: How long another process may hold the home folder.
        lose: Whether what the earlier release cannot hold may be lost.

    Raises:
        InvalidArgument: There is no such release.
        FailedPrecondition: An orchestrator works with the database, a newer version has used it, or something would be
            lost.
        StorageError: The store does not answer; nothing was changed in the database.
    """
    if release not in RELEASES:
        raise InvalidArgument(f"--to is {release!r}; allowed: {', '.join(RELEASES)}.")
    layout, url = RELEASES[release], settings.database_url.get_secret_value()
    with own_home(settings.home, wait_seconds):
        # Not yet opened as an orchestrator does it, which would bring the database to the newest layout.
        engine = open_engine(url)
        with engine.connect() as connection:
            before = migrate.layout_of(connection)
        engine.dispose()
        if before <= layout:
            sys.stdout.write(f"The database has layout {before or 'none'}, with which {release} works.\n")
            return 0
        database = Database(url, seconds=settings.database_seconds)
        try:
            refuse_life(database, settings.lease_seconds, "go back to an earlier release")
            with database.raw_connection() as connection:
                begun, anew = _go_back(connection, open_store(settings), layout, release, lose=lose)
        finally:
            database.dispose()
    sys.stdout.write(
        f"The database {database.name} went from layout {before} back to {layout}, with which {release} works. "
        f"{begun} runs that had begun wait in the queue again, and {anew} of them begin anew.\n"
    )
    return 0


def _go_back(connection: Connection, store: ObjectStore, layout: str, release: str, *, lose: bool) -> tuple[int, int]:
    """Change database and store; return how many runs had begun, and how many of them begin anew."""
    if first_release.works(connection):
        raise FailedPrecondition("An orchestrator of 0.1.0 works with the database; stop it first.")
    lost = losses(connection, layout)
    if lost and not lose:
        raise FailedPrecondition(
            f"{release} cannot hold these, which would be lost: {'; '.join(lost)}. Make a backup, which this release "
            "can restore, then say --lose."
        )
    begun = queue_again(connection)
    migrate.bring(connection, layout)
    anew = remove_newer_checkpoints(store, begun)
    # The id is made anew by the next release that has one; the store's would keep it from collecting.
    store.delete(keys.installation())
    return len(begun), anew
