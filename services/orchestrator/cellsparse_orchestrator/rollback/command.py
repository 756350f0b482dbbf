"""`python -m cellsparse_orchestrator rollback --to RELEASE`."""

import sys
from dataclasses import dataclass

from sqlalchemy import Connection

from cellsparse_common.errors import FailedPrecondition, InvalidArgument
from cellsparse_common.rpc.channel import use_tls
from cellsparse_common.storage import keys, open_store
from cellsparse_orchestrator.backup.restore import refuse_life
from cellsparse_orchestrator.db import first_release, migrate
from cellsparse_orchestrator.db.session import Database, peek_layout
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.rollback.losses import losses
from cellsparse_orchestrator.rollback.unended import end_attempts, queue_again, remove_newer_checkpoints
from cellsparse_orchestrator.settings import OrchestratorSettings

RELEASES = {"0.1.0": "0003"}
"""The newest layout of each release."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was done."""

    begun: int
    """Runs that had begun."""
    anew: int
    """Those of them that begin anew."""
    silent: list[str]
    """Addresses of trainers that may still train."""


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
            lost, or a training in the cluster does not end.
        StorageError: The store does not answer; nothing was changed in the database.
        Unavailable: The database does not answer, or the Kubernetes API.
    """
    if release not in RELEASES:
        raise InvalidArgument(f"--to is {release!r}; allowed: {', '.join(RELEASES)}.")
    layout, url = RELEASES[release], settings.database_url.get_secret_value()
    if settings.launcher == "static":
        use_tls(settings.client_tls())
    with own_home(settings.home, wait_seconds):
        # Not yet opened as an orchestrator does it, which would bring the database to the newest layout.
        before = peek_layout(url)
        if before <= layout:
            sys.stdout.write(f"The database has layout {before or 'none'}, with which {release} works.\n")
            return 0
        database = Database(url, seconds=settings.database_seconds)
        try:
            refuse_life(database, settings.lease_seconds, "go back to an earlier release")
            with database.raw_connection() as connection:
                done = _go_back(connection, settings, layout, release, lose=lose)
        finally:
            database.dispose()
    sys.stdout.write(
        f"The database {database.name} went from layout {before} back to {layout}, with which {release} works. "
        f"{done.begun} runs that had begun wait in the queue again, and {done.anew} of them begin anew.\n"
    )
    if done.silent:
        sys.stdout.write(
            f"These trainers did not say that they have stopped: {', '.join(done.silent)}. Stop them before {release} "
            "starts: it cannot read the checkpoints that they write.\n"
        )
    return 0


def _go_back(connection: Connection, settings: OrchestratorSettings, layout: str, release: str, *, lose: bool) -> Done:
    """Change database and store."""
    if first_release.works(connection):
        raise FailedPrecondition("An orchestrator of 0.1.0 works with the database; stop it first.")
    lost = losses(connection, layout)
    if lost and not lose:
        raise FailedPrecondition(
            f"{release} cannot hold these, which would be lost: {'; '.join(lost)}. Make a backup, which this release "
            "can restore, then say --lose."
        )
    # What still trains would write checkpoints of this release. On one machine it has ended with the orchestrator.
    silent = end_attempts(connection) if settings.launcher == "static" else []
    if settings.launcher == "kubernetes":
        _end_jobs(settings)
    begun = queue_again(connection)
    migrate.bring(connection, layout)
    store = open_store(settings)
    anew = remove_newer_checkpoints(store, begun)
    # The id is made anew by the next release that has one; the store's would keep it from collecting.
    store.delete(keys.installation())
    return Done(begun=len(begun), anew=anew, silent=silent)


def _end_jobs(settings: OrchestratorSettings) -> None:
    """End all trainings of the cluster."""
    # Imported only here: the Kubernetes client takes long to import.
    from cellsparse_orchestrator.launchers.kubernetes.cluster import connect
    from cellsparse_orchestrator.launchers.kubernetes.end_all import end_all
    from cellsparse_orchestrator.launchers.kubernetes.settings import read_settings

    assert settings.cluster_file is not None  # the settings check this
    end_all(read_settings(settings.cluster_file), connect(str(settings.kubeconfig or "")))
