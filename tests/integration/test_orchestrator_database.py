"""The database, of both kinds: layout, transactions, and failures as one clear status."""

import sqlite3
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from support.limits import PATIENCE

from cellsparse_common.errors import FailedPrecondition, InvalidArgument, Unavailable
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db import engine as engine_module
from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import Base, DatasetRow


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'a.db'}"


def in_threads(work, count=4):
    """Run work(number) in threads and return what they raised."""
    problems = []

    def guarded(number):
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - handed to the test
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return problems


def test_migrations_lead_to_the_tables_and_are_repeatable(database_url):
    newest = ""
    for _ in range(2):
        database = Database(database_url)
        assert database.migration.before == newest
        newest = database.migration.after
        assert newest >= "0008"
        database.close()
    with open_engine(database_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_many_orchestrators_may_migrate_at_once(database_url):
    assert in_threads(lambda _: Database(database_url).close()) == []


def test_a_database_of_a_newer_version_is_refused(database_url):
    Database(database_url).close()
    with open_engine(database_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
        connection.execute(text("UPDATE readers SET oldest = '0999'"))
    with pytest.raises(FailedPrecondition, match=r"layout 0999.*up to \d{4}:.*a newer version"):
        Database(database_url)


def test_foreign_keys_and_write_ahead_log(sqlite_url):
    database = Database(sqlite_url)
    with database.read() as session:
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"


def row(number):
    return DatasetRow(id=f"ds-{number}", name="x", created_at=now(), parent_id="", summary="{}")


def count(database):
    with database.read() as session:
        return session.scalar(text("SELECT count(*) FROM datasets"))


def test_an_exception_undoes_the_transaction(database_url):
    database = Database(database_url)

    def break_off():
        with database.write() as session:
            session.add(row(1))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert count(database) == 0
    database.close()


def test_a_reader_sees_one_state(database_url):
    database = Database(database_url)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM datasets")) == 0
        with database.write() as other:
            other.add(row(1))
        assert session.scalar(text("SELECT count(*) FROM datasets")) == 0
    assert count(database) == 1
    database.close()


def test_threads_that_write_at_once_all_succeed(database_url):
    database = Database(database_url)

    def write(thread):
        for number in range(20):
            with database.write() as session:
                session.add(row(1000 * thread + number))

    assert in_threads(write) == []
    assert count(database) == 80
    database.close()


def test_sqlite_writers_wait_for_each_other(sqlite_url):
    database = Database(sqlite_url)

    def write(thread):
        for number in range(20):
            with database.write() as session:
                before = session.scalar(text("SELECT count(*) FROM datasets"))
                session.add(row(1000 * thread + number))
                session.flush()
                assert session.scalar(text("SELECT count(*) FROM datasets")) == before + 1

    assert in_threads(write) == []
    assert count(database) == 80


def test_a_locked_database_is_unavailable(sqlite_url, monkeypatch, tmp_path):
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0)
    database = Database(sqlite_url)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"), database.write() as session:
        session.add(row(1))
    other.execute("ROLLBACK")
    with database.write() as session:
        session.add(row(1))


def test_a_locked_row_is_unavailable(postgres, monkeypatch):
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 1)
    database = Database(postgres.create_database())
    with database.write() as session:
        session.add(row(1))
    lock = text("SELECT id FROM datasets WHERE id = 'ds-1' FOR UPDATE")
    with database.write() as holder:
        holder.execute(lock)
        with pytest.raises(Unavailable, match="lock timeout"), database.write() as session:
            session.execute(lock)
    database.close()


def test_a_full_disk_is_unavailable(sqlite_url):
    database = Database(sqlite_url)
    with database.write() as session:
        pages = session.scalar(text("PRAGMA page_count"))

    def fill():
        with database.write() as session:
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
            session.add_all([row(number) for number in range(1000)])

    with pytest.raises(Unavailable, match="full"):
        fill()
    assert count(database) == 0


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path):
    with pytest.raises(Unavailable):
        Database(f"sqlite:///{tmp_path}/no/such/folder/a.db")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hunter2@host/name",
        "postgresql+asyncpg://me:hunter2@host/name",
        "postgresql://me@host:hunter2/name",
        "postgresql+psycopg://me:hun@hunter2@127.0.0.1:5432/name",
        "postgresql+psycopg://me:hun@b/hunter2@127.0.0.1:5432/name",
        "postgres://me:a@hunter2/b@c@127.0.0.1",
        "postgresql://me:hunter2",
        "hunter2",
        "",
    ],
)
def test_other_urls_are_refused_and_not_shown(url):
    with pytest.raises(InvalidArgument, match=r"allowed are sqlite.*postgresql") as caught:
        Database(url)
    assert "hunter2" not in str(caught.value)
