"""Of a run that ended some days ago two checkpoints stay; a project may have another number of days."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import update

from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.collection.leftovers import CHECKPOINTS, RUNS, Leftovers
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectLimitsRow, RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, trainer_pb2

PROJECTS = {"run-1": None, "run-2": "pr-short", "run-3": "pr-long", "run-4": None}


@pytest.fixture
def world(tmp_path):
    store, database = FolderStore(tmp_path / "store"), Database(f"sqlite:///{tmp_path / 'a.db'}")
    Datasets(database).add(dataset_pb2.Dataset(id="ds-1", created_at=timestamp(now())))
    runs = Runs(database, Notifier())
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
    with database.write() as session:
        session.add(ProjectLimitsRow(project_id="pr-short", checkpoint_days=1))
        session.add(ProjectLimitsRow(project_id="pr-long", checkpoint_days=30))
    for run_id, project_id in PROJECTS.items():
        runs.add(run_id, run_id, orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=settings))
        ended = (
            {"state": "FAILED", "ended_at": now() - timedelta(days=3)} if run_id != "run-4" else {"state": "RUNNING"}
        )
        with database.write() as session:
            session.execute(update(RunRow).where(RunRow.id == run_id).values(project_id=project_id, **ended))
        for step in (10, 20, 30):
            store.put(keys.checkpoint(run_id, step, "state"), b"weights")
        for name, step in (("LATEST", 30), ("BEST", 10)):
            store.put(keys.checkpoint_pointer(run_id, name), json.dumps({"step": step}).encode())
    yield store, database
    database.close()


def superfluous(store, database, days):
    leftovers = Leftovers(store, database, expired=now() - timedelta(days=30), now=now(), checkpoint_days=days)
    found = list(leftovers.find(RUNS, lambda: None))
    assert {each.kind for each in found} <= {CHECKPOINTS}
    return [(each.id, each.step) for each in found]


def test_days_of_the_settings_and_of_projects(world):
    assert superfluous(*world, 7) == [("run-2", 20)]
    assert superfluous(*world, 2) == [("run-1", 20), ("run-2", 20)]


def test_a_pointer_that_cannot_be_read_keeps_all(world):
    store, _ = world
    store.put(keys.checkpoint_pointer("run-2", "BEST"), b"{")
    assert superfluous(*world, 7) == []
