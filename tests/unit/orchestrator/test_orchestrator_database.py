"""The database: layout, transactions, and failures as one clear status."""

import sqlite3
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db import session as session_module
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import Base, DatasetRow


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'a.db'}"


def test_migrations_lead_to_the_tables_and_are_repeatable(url):
    for _ in range(2):
        Database(url).close()
    with create_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_many_orchestrators_may_migrate_at_once(url):
    problems = []

    def migrate():
        try:
            Database(url).close()
        except Unavailable as error:
            problems.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_foreign_keys_and_write_ahead_log(url):
    database = Database(url)
    with database.read() as session:
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"


def row(number):
    return DatasetRow(id=f"ds-{number}", name="x", created_at=now(), parent_id="", summary="{}")


def count(database):
    with database.read() as session:
        return session.scalar(text("SELECT count(*) FROM datasets"))


def test_an_exception_undoes_the_transaction(url):
    database = Database(url)

    def break_off():
        with database.write() as session:
            session.add(row(1))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert count(database) == 0


def test_threads_that_write_at_once_wait_for_each_other(url):
    database = Database(url)

    def write(first):
        for number in range(20):
            with database.write() as session:
                before = session.scalar(text("SELECT count(*) FROM datasets"))
                session.add(row(first + number))
                session.flush()
                assert session.scalar(text("SELECT count(*) FROM datasets")) == before + 1

    threads = [threading.Thread(target=write, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 80


def test_a_locked_database_is_unavailable(url, monkeypatch, tmp_path):
    monkeypatch.setattr(session_module, "_BUSY_SECONDS", 0)
    database = Database(url)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"), database.write() as session:
        session.add(row(1))
    other.execute("ROLLBACK")
    with database.write() as session:
        session.add(row(1))


def test_a_full_disk_is_unavailable(url):
    database = Database(url)
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
