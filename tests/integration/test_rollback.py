"""The way back to an earlier release: what it refuses, what it changes in database and store, and what needs none."""

import json
import os
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from cellsparse_common.config.settings import load
from cellsparse_common.errors import FailedPrecondition, InvalidArgument
from cellsparse_common.storage import keys, open_store
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.migrate import is_known
from cellsparse_orchestrator.db.readers import write_oldest
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AttemptRow, DatasetRow, ProjectRow, RunRow, TokenRow
from cellsparse_orchestrator.rollback.command import run_rollback
from cellsparse_orchestrator.settings import OrchestratorSettings

OLD = {"step": 4, "score": None, "files": {}, "best": None, "stale": 0}
NEW = {**OLD, "measure": "f1", "attempt": 1, "fence": 1}


@pytest.fixture
def settings(database_url, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("CELLSPARSE_")]:
        monkeypatch.delenv(name)
    return load(
        OrchestratorSettings,
        home=tmp_path / "home",
        database_url=database_url,
        store_url=(tmp_path / "store").as_uri(),
        lease_seconds=1.0,
        launcher="static",
    )


def run_row(name, state, backend="unet", given="{}"):
    return RunRow(
        id=name, request_sha256="", name=name, backend=backend, dataset_id="ds-1", settings=given,
        max_attempts=3, state=state, attempts=1, created_at=now(),
    )  # fmt: skip


def filled(settings):
    """A database of the newest layout with a dataset, and runs that have begun, one of each kind of checkpoint."""
    database = Database(settings.database_url.get_secret_value())
    store = open_store(settings)
    with database.write() as session:
        session.add(DatasetRow(id="ds-1", name="d", created_at=now(), summary="{}"))
        likely = '{"stardist": {"likelyBackground": 0.3}}'
        session.add(run_row("run-old", "RUNNING", "stardist", likely))
        session.add(run_row("run-new", "RETRYING"))
        session.add(run_row("run-over", "SUCCEEDED"))
        session.flush()
        session.add(AttemptRow(run_id="run-new", number=1, state="RUNNING", created_at=now(), trainer="127.0.0.1:1"))
    for run_id, pointer in (("run-old", OLD), ("run-new", NEW), ("run-over", NEW)):
        store.put(keys.checkpoint_pointer(run_id, "LATEST"), json.dumps(pointer).encode())
        store.put(keys.checkpoint(run_id, 4, "state"), b"state")
    store.put(keys.installation(), b"installation-1")
    return database, store


def rows(settings, query):
    with open_engine(settings.database_url.get_secret_value()).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_what_an_earlier_release_cannot_hold_is_named_and_nothing_changes(settings):
    database, store = filled(settings)
    with database.write() as session:
        session.add(ProjectRow(id="p-1", name="mine", created_at=now()))
        session.add(TokenRow(id=new_id("t"), sha256="", name="t", role="ADMIN", created_at=now()))
    database.close()
    with pytest.raises(FailedPrecondition, match=r"tokens \(1\).*; projects with their images and annotations \(1\)"):
        run_rollback(settings, "0.1.0", 0, lose=False)
    with pytest.raises(InvalidArgument, match=r"--to is '0.0.9'; allowed: 0.1.0"):
        run_rollback(settings, "0.0.9", 0, lose=False)
    assert rows(settings, "SELECT state FROM runs WHERE id = 'run-new'") == [("RETRYING",)]
    assert store.exists(keys.checkpoint_pointer("run-new", "LATEST"))
    assert run_rollback(settings, "0.1.0", 0, lose=True) == 0
    assert rows(settings, "SELECT version_num FROM alembic_version") == [("0003",)]


def test_runs_that_have_begun_wait_again_and_the_next_upgrade_finds_everything(settings, capsys):
    database, store = filled(settings)
    newest = database.migration.after
    database.close()
    assert run_rollback(settings, "0.1.0", 0, lose=False) == 0
    said = capsys.readouterr().out
    assert "2 runs that had begun wait in the queue again, and 1 of them begin anew" in said
    assert "did not say that they have stopped: 127.0.0.1:1. Stop them before 0.1.0 starts" in said
    begun = "SELECT id, state, attempts, interruptions FROM runs ORDER BY number"
    expected = [("run-old", "QUEUED", 1, 1), ("run-new", "QUEUED", 1, 1), ("run-over", "SUCCEEDED", 1, 0)]
    assert rows(settings, begun) == expected
    assert rows(settings, "SELECT state, reason FROM attempts") == [("FAILED", "LOST")]
    assert '"darkShare"' in rows(settings, "SELECT settings FROM runs WHERE id = 'run-old'")[0][0]
    there = [run_id for run_id, *_ in expected if list(store.list(keys.checkpoints_prefix(run_id)))]
    assert there == ["run-old", "run-over"]
    assert not store.exists(keys.installation())

    assert run_rollback(settings, "0.1.0", 0, lose=False) == 0  # once more
    assert "has layout 0003, with which 0.1.0 works" in capsys.readouterr().out
    again = Database(settings.database_url.get_secret_value())
    assert (again.migration.before, again.migration.after) == ("0003", newest)
    again.close()
    assert rows(settings, begun) == expected
    assert '"likelyBackground"' in rows(settings, "SELECT settings FROM runs WHERE id = 'run-old'")[0][0]


def test_it_waits_for_no_orchestrator_and_changes_nothing_beside_one(settings):
    database, _ = filled(settings)
    leader = Database(settings.database_url.get_secret_value())
    assert leader.try_lead()
    database.close()
    renewed = []

    def sleeping(_seconds):
        leader.renew_lease()
        renewed.append(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellsparse_orchestrator.backup.restore.time.sleep", sleeping)
        with pytest.raises(FailedPrecondition, match="stop it before you go back to an earlier release"):
            run_rollback(settings, "0.1.0", 0, lose=True)
    assert renewed
    leader.close()
    assert run_rollback(settings, "0.1.0", 0, lose=True) == 0


def test_a_layout_that_only_adds_needs_no_way_back(settings):
    """An earlier release reads down to which layout that holds."""
    url = settings.database_url.get_secret_value()
    Database(url).close()
    newest = rows(settings, "SELECT version_num FROM alembic_version")[0][0]
    oldest = rows(settings, "SELECT oldest FROM readers")[0][0]
    assert is_known(oldest)
    assert oldest <= newest
    with open_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    database = Database(url)
    assert (database.migration.before, database.migration.after) == ("0999", "0999")
    assert database.try_lead()
    database.close()
    with open_engine(url).begin() as connection:
        connection.execute(text("UPDATE readers SET oldest = '0998'"))
    with pytest.raises(FailedPrecondition, match=r"layout 0999.* or its command `rollback`"):
        Database(url)


def test_the_earliest_reader_is_the_last_layout_that_did_more_than_add(settings):
    url = settings.database_url.get_secret_value()
    Database(url).close()
    adds, more = SimpleNamespace(only_adds=True), SimpleNamespace()
    chain = {
        number: SimpleNamespace(revision=number, down_revision=before, module=module)
        for number, before, module in (("0020", "0019", adds), ("0019", "0018", adds), ("0018", "0017", more))
    }
    for layout, oldest in (("0020", "0018"), ("0018", "0018")):
        with open_engine(url).begin() as connection:
            write_oldest(connection, SimpleNamespace(get_revision=chain.get), layout)
        assert rows(settings, "SELECT oldest FROM readers") == [(oldest,)]


def test_an_orchestrator_of_0_1_0_keeps_the_lease_from_others(postgres):
    url = postgres.create_database()
    database = Database(url)
    with open_engine(url).connect() as earlier:
        assert earlier.scalar(text("SELECT pg_try_advisory_lock(7205002, hashtext(current_schema()))"))
        earlier.commit()
        assert not database.try_lead()
    earlier.engine.dispose()
    assert database.try_lead()
    database.close()
