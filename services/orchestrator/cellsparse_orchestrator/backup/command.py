"""`python -m cellsparse_orchestrator backup` and `restore`."""

import sys
import tempfile
from pathlib import Path

from cellsparse_common.files import disk_errors
from cellsparse_common.storage import open_store
from cellsparse_orchestrator.backup.backup import Backup
from cellsparse_orchestrator.backup.restore import restore
from cellsparse_orchestrator.backup.settings import open_backup
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.settings import OrchestratorSettings

_MIB = 2**20


def run_backup(settings: OrchestratorSettings, url: str) -> int:
    """Make a snapshot; return the exit code: 1 if something was missing from the store."""
    target = open_backup(settings, url)
    database = _open(settings)
    try:
        with tempfile.TemporaryDirectory(prefix="cellsparse-backup-") as folder:
            report = Backup(open_store(settings), database, target, Path(folder)).run()
    finally:
        database.close()
    made = report.snapshot
    sys.stdout.write(
        f"Snapshot {made.id}: {made.objects} objects ({made.bytes / _MIB:.1f} MiB), {report.copied} of them new "
        f"({report.copied_bytes / _MIB:.1f} MiB).\n"
    )
    for key in report.missing:
        sys.stderr.write(f"The store does not have {key}, so the backup does not have it either.\n")
    return 1 if report.missing else 0


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
