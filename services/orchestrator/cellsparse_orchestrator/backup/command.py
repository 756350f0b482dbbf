"""`python -m cellsparse_orchestrator backup` and `restore`."""

import sys
import tempfile
from pathlib import Path

from cellsparse_common.config.settings import load
from cellsparse_common.errors import FailedPrecondition
from cellsparse_common.files import disk_errors
from cellsparse_common.storage import ObjectStore, open_store
from cellsparse_orchestrator.backup.backup import Backup, Report
from cellsparse_orchestrator.backup.hold import pruning
from cellsparse_orchestrator.backup.prune import Keep, prune
from cellsparse_orchestrator.backup.restore import restore
from cellsparse_orchestrator.backup.settings import BackupSettings, open_backup
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.settings import OrchestratorSettings

_MIB = 2**20


def run_backup(
    settings: OrchestratorSettings, url: str, *, keep: int | None = None, keep_days: float | None = None
) -> int:
    """Make a snapshot, and remove old ones; return the exit code: 1 if something was missing from the store.

    Args:
        settings: Database and store.
        url: Where to; empty: as the environment says.
        keep: Newest snapshots that stay; None: as the environment says.
        keep_days: Days whose snapshots stay; None: as the environment says.
    """
    given = {name: value for name, value in (("keep", keep), ("keep_days", keep_days)) if value is not None}
    rules = load(BackupSettings, **given)
    target = open_backup(settings, url)
    database = _open(settings)
    try:
        with tempfile.TemporaryDirectory(prefix="cellsparse-backup-") as folder:
            report = Backup(open_store(settings), database, target, Path(folder)).run()
        _tell(report)
        _prune(database, target, Keep(newest=rules.keep, days=rules.keep_days))
    finally:
        database.close()
    return 1 if report.missing else 0


def _tell(report: Report) -> None:
    made = report.snapshot
    sys.stdout.write(
        f"Snapshot {made.id}: {made.objects} objects ({made.bytes / _MIB:.1f} MiB), {report.copied} of them new "
        f"({report.copied_bytes / _MIB:.1f} MiB).\n"
    )
    for key in report.missing:
        sys.stderr.write(f"The store does not have {key}, so the backup does not have it either.\n")


def _prune(database: Database, target: ObjectStore, keep: Keep) -> None:
    """Remove old snapshots, unless another backup goes on: the next one will."""
    if keep.all:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="cellsparse-backup-") as folder, pruning(database) as alive:
            pruned = prune(target, Path(folder), keep, now(), alive)
    except FailedPrecondition as error:
        sys.stderr.write(f"Old snapshots stay until the next backup: {error.message}\n")
        return
    sys.stdout.write(
        f"Removed {pruned.snapshots} old snapshots, and {pruned.blobs} objects ({pruned.bytes / _MIB:.1f} MiB) that no "
        "other one has.\n"
    )


def run_restore(settings: OrchestratorSettings, url: str, snapshot_id: str) -> int:
    """Restore a snapshot; return the exit code."""
    source = open_backup(settings, url)
    with own_home(settings.home), tempfile.TemporaryDirectory(prefix="cellsparse-restore-") as folder:
        database = _open(settings)
        try:
            made = restore(
                open_store(settings),
                database,
                source,
                Path(folder),
                snapshot_id=snapshot_id,
                lease_seconds=settings.lease_seconds,
            )
        finally:
            database.close()
    sys.stdout.write(f"Restored snapshot {made.id}: {made.objects} objects ({made.bytes / _MIB:.1f} MiB).\n")
    return 0


def _open(settings: OrchestratorSettings) -> Database:
    with disk_errors(f"use the home folder {settings.home}"):
        settings.home.mkdir(parents=True, exist_ok=True)
    return Database(settings.database_url.get_secret_value(), seconds=settings.database_seconds)
