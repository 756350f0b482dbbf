"""The orchestrator on PostgreSQL: one at a time, outages survived, the password in no log; and its migrate command."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from support.limits import PATIENCE, QUICK
from support.orchestrator import Orchestrator, refused, state_names, until
from support.postgres import PASSWORD, NoPostgres, Postgres

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.db import migrations
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

COMMAND = [sys.executable, "-m", "cellsparse_orchestrator"]
SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step; none ends early


@pytest.fixture
def own_postgres():
    """A server that a test may stop."""
    try:
        with Postgres() as server:
            yield server
    except NoPostgres as error:
        pytest.skip(f"no PostgreSQL can be started here: {error}")


def run_command(home, url, *words):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")},
        "CELLSPARSE_HOME": str(home),
        "CELLSPARSE_PORT": "0",
        "CELLSPARSE_LAUNCHER": "static",
        "CELLSPARSE_DATABASE_SECONDS": "1",
        **({"CELLSPARSE_DATABASE_URL": url} if url else {}),
    }
    return subprocess.run(
        [*COMMAND, *words], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize("embedded", [True, False])
def test_migrate_says_what_it_did(embedded, tmp_path, request):
    database_url = "" if embedded else request.getfixturevalue("postgres").create_database()
    first = run_command(tmp_path / "home", database_url, "migrate")
    assert (first.returncode, first.stderr.count("Traceback")) == (0, 0), first.stderr
    newest = max(path.name for path in (Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))[:4]
    assert f"went from no tables to layout {newest}" in first.stdout
    second = run_command(tmp_path / "home", database_url, "migrate")
    assert second.returncode == 0
    assert f"has layout {newest} already" in second.stdout
    assert PASSWORD not in first.stdout + first.stderr + second.stdout + second.stderr
    assert (tmp_path / "home" / "cellsparse.db").exists() == embedded
    assert (tmp_path / "home").exists() == embedded, "a cluster's migration has no folder to write to"


def test_migrate_may_run_many_times_at_once(postgres, tmp_path):
    url, done = postgres.create_database(), []
    threads = [
        threading.Thread(target=lambda name=name: done.append(run_command(tmp_path / name, url, "migrate")))
        for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0, 0]
    assert sorted("from no tables" in one.stdout for one in done) == [False, True]


def test_a_database_that_is_away_at_start_is_one_sentence(tmp_path):
    url = f"postgresql+psycopg://cellsparse:{PASSWORD}@127.0.0.1:9/none"
    for words in ((), ("migrate",)):
        done = run_command(tmp_path / "home", url, *words)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1
        assert "The database does not answer" in last
        assert PASSWORD not in done.stdout + done.stderr


def test_a_database_that_comes_late_is_waited_for(own_postgres):
    url = own_postgres.create_database()
    own_postgres.stop()
    threading.Timer(1.5, own_postgres.start).start()
    database = Database(url, seconds=30)
    assert database.migration.after
    database.close()


def end_connections(postgres, url):
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    postgres.execute(ending + "pg_backend_pid()", url.rpartition("/")[2])


def test_a_holder_whose_connections_are_cut_keeps_its_lease(postgres):
    url = postgres.create_database()
    first, second = Database(url), Database(url)
    assert first.try_lead()
    assert not second.try_lead()
    end_connections(postgres, url)
    first.renew_lease()
    assert not second.try_lead()
    first.close()
    assert second.try_lead()
    second.close()


def test_an_outage_is_unavailable_and_over_when_the_server_is_back(own_postgres):
    database = Database(own_postgres.create_database())
    datasets = Datasets(database)
    datasets.page(common_pb2.PageRequest())
    own_postgres.stop()
    for _ in range(3):
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="The database does not answer") as caught:
            datasets.page(common_pb2.PageRequest())
        assert time.monotonic() - begin < QUICK
        assert PASSWORD not in str(caught.value)
    own_postgres.start()
    assert datasets.page(common_pb2.PageRequest()) == ([], "")
    database.close()


def test_a_run_outlives_an_outage_of_its_database(own_postgres, tmp_path):
    url = own_postgres.create_database()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "cellsparse_database_url").write_text(f"{url}\n")
    settings = {"CELLSPARSE_SECRETS_DIR": str(secrets), "CELLSPARSE_LOG_LEVEL": "DEBUG"}
    with Orchestrator(tmp_path / "home", **settings) as orchestrator:
        orchestrator.healthy("unet")
        run = orchestrator.train(orchestrator.upload().id, steps=80, **SLOW)
        until(lambda: orchestrator.run(run.id).progress.step >= 5)
        own_postgres.stop()
        request = orchestrator_pb2.GetRunRequest(run_id=run.id)
        error = refused(orchestrator.runs.GetRun, request)
        assert error.status == grpc.StatusCode.UNAVAILABLE
        assert "The database does not answer" in error.message
        time.sleep(1)
        own_postgres.start()
        until(lambda: orchestrator.run(run.id).progress.step >= 20)
        events = list(orchestrator.watch(run.id))
        assert state_names(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        trained = [event.training.sequence for event in events if event.HasField("training")]
        assert trained == list(range(1, len(trained) + 1)), "an event is missing or doubled"
        assert orchestrator.run(run.id).attempts == 1
        log = orchestrator.log
    assert PASSWORD not in log.read_text()
    assert not any(PASSWORD in file.read_text(errors="replace") for file in (tmp_path / "home" / "logs").rglob("*"))
