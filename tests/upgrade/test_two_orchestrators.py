"""From the last release to this one and back, as in a cluster: PostgreSQL, MinIO, services that each have an address.

Orchestrators come and go while a trainer of the last release trains and a client of the last release watches.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import grpc
import psutil
import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.minio import running_minio, store_environment
from support.orchestrator import Orchestrator, state_names, until
from support.postgres import NoPostgres, Postgres, free_port
from support.server_process import TESTS, ServerProcess

from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, project_pb2

QUEUED, RUNNING = common_pb2.RUN_STATE_QUEUED, common_pb2.RUN_STATE_RUNNING
SUCCEEDED, CANCELLED = common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_CANCELLED
SLOW = {"learning_rate": 0.9, "patience": 0, "checkpoint_every_steps": 20}  # 0.05 s in every step
STEPS = 100_000
"""So many that a training has not ended before the test ends it."""
WATCHER = Path(__file__).with_name("watcher.py")


class Site:
    """What orchestrators of both releases work with: database, store, and the addresses of all services."""

    def __init__(self, folder, stack, release):
        self.folder = folder
        self.release = release
        try:
            self.database_url = stack.enter_context(Postgres()).create_database()
        except NoPostgres as error:
            pytest.skip(f"no PostgreSQL can be started here: {error}")
        (folder / "minio").mkdir()
        server = stack.enter_context(running_minio(folder / "minio"))
        server.client().make_bucket("lab")
        self.settings = server.settings("s3://lab/site")
        self.store = open_store(self.settings)
        self.ports = {name: str(free_port()) for name in ("a", "b", "trainer", "sparsifier")}

    def orchestrator(self, name, *, old):
        """One that is not started yet; each name has a home and an address of its own."""
        return Orchestrator(
            self.folder / name,
            CELLSPARSE_DATABASE_URL=self.database_url,
            CELLSPARSE_DATABASE_SECONDS="0",
            CELLSPARSE_LAUNCHER="static",
            CELLSPARSE_TRAINERS=f"unet=127.0.0.1:{self.ports['trainer']}",
            CELLSPARSE_SPARSIFIER=f"127.0.0.1:{self.ports['sparsifier']}",
            CELLSPARSE_LOST_SECONDS=f"{PATIENCE}",
            **self.environment(name, old=old),
        )

    def service(self, name, module, *, old):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return ServerProcess(["-m", module], folder, folder, **self.environment(name, old=old))

    def environment(self, name, *, old):
        return {
            **store_environment(self.settings),
            "PYTHONPATH": self.release.path if old else str(TESTS),
            "CELLSPARSE_PORT": self.ports[name],
            "CELLSPARSE_LEASE_SECONDS": "2",
        }

    def command(self, *words):
        """Run a command of this release's orchestrator on the database."""
        environment = {
            **self.environment("b", old=False),
            "CELLSPARSE_DATABASE_URL": self.database_url,
            "CELLSPARSE_LAUNCHER": "static",
        }
        return subprocess.run(
            [sys.executable, "-m", "cellsparse_orchestrator", *words],
            env={**environment, "CELLSPARSE_HOME": str(self.folder / "command"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture
def site(tmp_path, release):
    with contextlib.ExitStack() as stack:
        stack.callback(_kill_all, tmp_path)
        yield Site(tmp_path, stack, release)


def _kill_all(folder):
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in process.environ().get("CELLSPARSE_WORK_DIR", ""):
                process.kill()


def state(orchestrator, run):
    return orchestrator.run(run.id).state


def leads(orchestrator):
    try:
        return orchestrator.runs.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=PATIENCE)
    except grpc.RpcError as error:
        if "stands by" not in error.details():
            raise
        return None


def test_an_upgrade_under_load_and_the_way_back(site):
    with contextlib.ExitStack() as services:
        services.enter_context(site.service("sparsifier", "cellsparse_sparsifier", old=True))
        trainer = services.enter_context(contextlib.ExitStack())
        trainer.enter_context(site.service("trainer", "support.cellsparse_fake", old=True))
        long, queued, watch = upgrade(site)
        trainer.close()  # in the middle of a training: it resumes where the other release's code has stopped
        trainer.enter_context(site.service("trainer", "support.cellsparse_fake", old=False))
        made = go_on(site, long, queued, watch)
        go_back(site, long, made)


def upgrade(site):
    """Start with the last release, put load on it, and let one of today take over."""
    with contextlib.ExitStack() as both:
        first = both.enter_context(contextlib.ExitStack())
        old = first.enter_context(site.orchestrator("a", old=True))
        old.healthy("unet")
        dataset = old.upload()
        ended = old.train(dataset.id, steps=5, seed=1)
        until(lambda: state(old, ended) == SUCCEEDED)
        long = old.train(dataset.id, steps=STEPS, seed=2, **SLOW)
        watch = subprocess.Popen(
            [sys.executable, WATCHER, old.address, long.id],
            env={"PYTHONPATH": site.release.path, "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda: old.run(long.id).progress.step > 20)
        queued = [old.train(dataset.id, steps=5, seed=seed) for seed in (3, 4)]

        new = both.enter_context(site.orchestrator("b", old=False))  # it has migrated
        assert not leads(new)
        assert state(old, long) == RUNNING
        late = old.train(dataset.id, steps=5, seed=5)  # the last release on the layout of today
        assert state(old, late) == QUEUED
        first.close()
        until(lambda: leads(new))
        assert dataset_names(new) == {"tiny"}
        step = new.run(long.id).progress.step
        until(lambda: new.run(long.id).progress.step > step)
        assert new.run(long.id).attempts == 1
    return long, [*queued, late], watch


def dataset_names(orchestrator):
    answer = orchestrator.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=PATIENCE)
    return {dataset.name for dataset in answer.datasets}


def go_on(site, long, queued, watch):
    """At the address of the last release's orchestrator, with a trainer of today."""
    with site.orchestrator("a", old=False) as new:
        until(lambda: leads(new))
        resumed = until(lambda: (run := new.run(long.id)).attempts == 2 and run.progress.step)
        assert resumed > 20, "the second attempt has begun anew"
        assert [state(new, run) for run in queued] == [QUEUED] * len(queued)
        new.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=long.id), timeout=PATIENCE)
        for run in queued:
            until(lambda run=run: state(new, run) == SUCCEEDED, LONG_PATIENCE)
        lines = [json.loads(line) for line in watch.communicate(timeout=PATIENCE)[0].splitlines()]
        assert watch.returncode == 0
        seen = [line["sequence"] for line in lines if "sequence" in line]
        assert seen == [event.sequence for event in new.watch(long.id)]
        assert any("lost" in line for line in lines)
        project = new.projects.CreateProject(project_pb2.CreateProjectRequest(name="new"), timeout=PATIENCE).project
        assert project.id
        dataset = new.upload(name="newer")
        unended = new.train(dataset.id, steps=STEPS, seed=6, **SLOW)
        until(lambda: new.run(unended.id).progress.checkpoint_step)
        return unended


def go_back(site, long, unended):
    """Bring the database back, and let the last release train again."""
    refused = site.command("rollback", "--to", site.release.name)
    assert refused.returncode == 1
    assert "projects with their images and annotations (1)" in refused.stderr
    done = site.command("rollback", "--to", site.release.name, "--lose")
    assert done.returncode == 0, done.stderr
    assert "1 runs that had begun wait in the queue again, and 1 of them begin anew" in done.stdout
    assert "did not say" not in done.stdout
    assert not site.store.exists(keys.checkpoint_pointer(unended.id, "LATEST"))
    with site.orchestrator("a", old=True) as old:
        old.healthy("unet")
        assert state(old, long) == CANCELLED
        assert dataset_names(old) == {"tiny", "newer"}
        until(lambda: old.run(unended.id).progress.step > 0)
        assert state_names(old.watch(long.id))[-1] == "CANCELLED"
        old.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=unended.id), timeout=PATIENCE)
        dataset = old.upload(name="again")
        again = old.train(dataset.id, steps=5, seed=7)
        until(lambda: state(old, again) == SUCCEEDED, LONG_PATIENCE)
