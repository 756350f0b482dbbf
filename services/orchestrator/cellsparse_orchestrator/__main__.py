"""Start the orchestrator: `python -m cellsparse_orchestrator`.

`python -m cellsparse_orchestrator migrate` only migrates the database. The orchestrator does that at every start, but a
cluster's upgrade needs it done, or refused, before any pod is replaced. `rollback` brings database and store back to an
earlier release. `backup` and `restore` do so with database and store.
"""

import argparse
import sys

from cellsparse_common import tracing
from cellsparse_common.config.settings import load
from cellsparse_common.errors import CellsparseError, Unavailable
from cellsparse_common.files import disk_errors
from cellsparse_common.freed_memory import return_large_blocks
from cellsparse_common.logs import configure_logging
from cellsparse_common.rpc.channel import use_tls
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.settings import OrchestratorSettings

POD_WAIT_SECONDS = 60.0
"""How long a pod waits for the volume's lock: a pod that was deleted is still ending when its successor starts."""


def main() -> None:
    """Run the command; exit with code 0, or with 1 and a message."""
    parser = argparse.ArgumentParser(prog="python -m cellsparse_orchestrator", description="The orchestrator.")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "migrate", "rollback", "backup", "restore"),
        default="serve",
        help="serve (default) until SIGTERM or SIGINT; migrate the database and end; rollback to an earlier release; "
        "backup or restore database and store and end",
    )
    parser.add_argument(
        "--to",
        default="",
        metavar="URL|RELEASE",
        help="backup: where to; default: CELLSPARSE_BACKUP_STORE_URL; rollback: which release, such as 0.1.0",
    )
    parser.add_argument("--lose", action="store_true", help="rollback: lose what the earlier release cannot hold")
    parser.add_argument("--from", dest="source", default="", metavar="URL", help="restore: where from; likewise")
    parser.add_argument(
        "--keep", type=int, metavar="N", help="backup: newest snapshots that stay; default: CELLSPARSE_BACKUP_KEEP"
    )
    parser.add_argument("--keep-days", type=float, metavar="DAYS", help="backup: days whose snapshots stay; likewise")
    parser.add_argument("--snapshot", default="", metavar="ID", help="restore: which snapshot; default: the newest")
    given = parser.parse_args()
    command = given.command
    try:
        settings = load(OrchestratorSettings)
        configure_logging("orchestrator", settings.log_level)
        if command in ("backup", "restore"):
            from cellsparse_orchestrator.backup.command import run_backup, run_restore  # not needed to serve

            if command == "backup":
                code = run_backup(settings, given.to, keep=given.keep, keep_days=given.keep_days)
            else:
                code = run_restore(settings, given.source, given.snapshot)
        elif command == "rollback":
            from cellsparse_orchestrator.rollback.command import run_rollback  # not needed to serve

            code = run_rollback(settings, given.to, _home_seconds(settings), lose=given.lose)
        else:
            code = _migrate(settings) if command == "migrate" else _serve(settings)
    except CellsparseError as error:
        sys.exit(error.message)
    sys.exit(code)


def _serve(settings: OrchestratorSettings) -> int:
    tracing.start("orchestrator")
    return_large_blocks()
    # Slow to import, and not needed to migrate.
    from cellsparse_common.rpc.server import serve
    from cellsparse_orchestrator.application import Application
    from cellsparse_orchestrator.leadership import LOST

    if settings.launcher != "local":  # child processes listen on loopback, without certificates
        use_tls(settings.client_tls())
    with own_home(settings.home, _home_seconds(settings)):
        application = Application(settings)
        code = serve(
            name="orchestrator",
            settings=settings,
            add=application.add,
            started=application.start,
            drain=application.drain,
            stop=application.stop,
            registry=application.registry,
            refuse=lambda: application.standby,
            missing=lambda: application.missing,
            gate=application.gate,
            watchers=settings.watchers,
            how_to_authenticate="CELLSPARSE_AUTH=tokens or CELLSPARSE_TLS_CLIENT_CA",
        )
        if application.lost:
            raise Unavailable(LOST)
        return code


def _home_seconds(settings: OrchestratorSettings) -> float:
    return POD_WAIT_SECONDS if settings.launcher == "kubernetes" else 0


def _migrate(settings: OrchestratorSettings) -> int:
    url = settings.database_url.get_secret_value()
    if url.startswith("sqlite"):
        with disk_errors(f"use the home folder {settings.home}"):
            settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(url, seconds=settings.database_seconds)
    done = database.migration
    if done.before == done.after:
        what = f"has layout {done.after} already"
    else:
        what = f"went from {f'layout {done.before}' if done.before else 'no tables'} to layout {done.after}"
    sys.stdout.write(f"The database {database.name} {what}.\n")
    database.close()
    return 0


if __name__ == "__main__":
    main()
