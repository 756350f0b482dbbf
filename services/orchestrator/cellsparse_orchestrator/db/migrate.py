"""Migrate a database to the newest layout, one process at a time."""

import logging
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.db.readers import oldest_reader, write_oldest

_LOG = logging.getLogger(__name__)
# Any constant will do, as long as all processes that share the database use the same one.
_LOCK = 7_205_001
_WAIT_SECONDS = 600
"""Longest wait for another process that migrates, and for one statement of our own migration."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """What a migration did."""

    before: str
    """The layout before; empty for a database without tables."""
    after: str
    """The layout now: the newest, or one of a newer version that only adds to it."""


def migrate(connection: Connection) -> Migration:
    """Migrate a database to the newest layout, completely or not at all.

    One of a newer version stays as it is where that only adds to ours (see `readers`).

    Raises:
        FailedPrecondition: A newer version of the orchestrator has used it, with which this one does not work.
    """
    config = _config()
    scripts = _scripts(config)
    newest = scripts.get_current_head() or ""
    locked = connection.execution_options(writes=True)
    with locked.begin():
        if connection.dialect.name == "postgresql":
            for name in ("lock_timeout", "statement_timeout"):
                setting = {"name": name, "value": f"{_WAIT_SECONDS}s"}
                connection.execute(text("SELECT set_config(:name, :value, true)"), setting)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = MigrationContext.configure(connection).get_current_revision() or ""
        known = [script.revision for script in scripts.walk_revisions()]
        if before and before not in known:
            if oldest_reader(connection) in known:
                _LOG.warning("the database has layout %s of a newer version, which only adds to %s", before, newest)
                return Migration(before=before, after=before)
            raise FailedPrecondition(
                f"The database has layout {before}, but this version of the orchestrator knows layouts up to {newest}: "
                "a newer version has used it; run that one, or its command `rollback`."
            )
        if before != newest:
            config.attributes["connection"] = locked
            command.upgrade(config, "head")
            write_oldest(connection, scripts, newest)
    return Migration(before=before, after=newest)


def is_known(layout: str) -> bool:
    """Whether this version knows a layout."""
    return layout in [script.revision for script in _scripts(_config()).walk_revisions()]


def layout_of(connection: Connection) -> str:
    """Return the layout of a database, "" for one without tables.

    Raises:
        FailedPrecondition: A newer version of the orchestrator has used it.
    """
    found = MigrationContext.configure(connection).get_current_revision() or ""
    if found and not is_known(found):
        raise FailedPrecondition(f"The database has layout {found} of a newer version; take that one's command.")
    return found


def bring(connection: Connection, layout: str) -> None:
    """Bring a database to a layout; "head" is the newest.

    Args:
        connection: Inside a transaction that writes.
        layout: A known one.
    """
    config = _config()
    config.attributes["connection"] = connection
    before = MigrationContext.configure(connection).get_current_revision() or ""
    newest = layout == "head" or before < layout
    (command.upgrade if newest else command.downgrade)(config, layout)
    scripts = _scripts(config)
    write_oldest(connection, scripts, (scripts.get_current_head() or "") if layout == "head" else layout)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)
