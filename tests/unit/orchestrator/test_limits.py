"""Quotas of projects: refused with the quota, what is used, and what would be needed."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from cellsparse_common.errors import NotFound, ResourceExhausted
from cellsparse_common.storage import FolderStore
from cellsparse_orchestrator.caller import Caller, acting
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.limits import RunsAllowed, runs_allowed
from cellsparse_orchestrator.catalogue.models import Models, add_model
from cellsparse_orchestrator.catalogue.quota_metrics import QuotaMetrics, quotas_used
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AttemptRow, RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, project_pb2, rules_pb2, trainer_pb2

SETTINGS = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), processes_per_node=2)


class World:
    def __init__(self, folder):
        self.database = Database(f"sqlite:///{folder / 'a.db'}")
        self.projects = Projects(self.database, FolderStore(folder / "store"))
        self.project_id = self.projects.add("nuclei").id
        self.datasets, self.runs = Datasets(self.database), Runs(self.database, Notifier())
        self.models = Models(self.database)

    def upload(self, name, items, size=0):
        caller = Caller(token_id="t", name="t", role=rules_pb2.ROLE_ANNOTATOR, project_id=self.project_id)
        with acting(caller):
            dataset = dataset_pb2.Dataset(id=name, train_items=items, created_at=timestamp(now()))
            self.datasets.add(dataset, size=size)

    def train(self, run_id, **how):
        request = orchestrator_pb2.CreateRunRequest(dataset_id="ds-0", settings=SETTINGS)
        self.runs.add(run_id, run_id, request, **how)

    def limit(self, **limits):
        return self.projects.set_limits(self.project_id, project_pb2.ProjectLimits(**limits))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    made.upload("ds-0", 3)
    yield made
    made.database.close()


def test_items_beyond_the_quota_are_refused(world):
    assert world.limit(items=5).use.items == 3
    with pytest.raises(ResourceExhausted, match=r"is 5 items .* and it has 3: 4 more take 7"):
        world.upload("ds-1", 4)
    world.upload("ds-1", 2)
    with pytest.raises(ResourceExhausted):
        world.upload("ds-2", 1)
    world.datasets.remove("ds-1")
    world.upload("ds-2", 1)


def test_runs_beyond_the_quota_are_refused(world):
    world.limit(runs=1)
    world.train("run-1")
    with pytest.raises(ResourceExhausted, match=r"is 1 runs at once, and 1 have not ended: one more takes 2"):
        world.train("run-2")
    world.runs.cancel("run-1")
    world.train("run-2")


def test_many_runs_beyond_the_quota_are_all_refused(world):
    world.limit(runs=3)
    world.train("run-0")
    one = orchestrator_pb2.CreateRunRequest(dataset_id="ds-0", settings=SETTINGS)
    with pytest.raises(ResourceExhausted, match=r"is 3 runs at once, and 1 have not ended: 3 more take 4"):
        world.runs.add_together(["run-1", "run-2", "run-3"], orchestrator_pb2.CreateRunsRequest(runs=[one] * 3))
    assert world.runs.count_active() == 1
    world.runs.add_together(["run-1", "run-2"], orchestrator_pb2.CreateRunsRequest(runs=[one] * 2))
    assert world.runs.count_active() == 3


def test_gpu_hours_beyond_the_quota_are_refused(world):
    world.train("run-1")
    began = now() - timedelta(hours=3)
    with world.database.write() as session:
        session.add(AttemptRow(run_id="run-1", number=1, state="FAILED", created_at=began, ended_at=now()))
        session.execute(update(RunRow).values(state="FAILED"))
    assert world.limit(gpu_hours=5.5).use.gpu_hours == pytest.approx(6.0, abs=0.01)
    with pytest.raises(ResourceExhausted, match=r"is 5.5 GPU hours, and its trainings have taken 6.00"):
        world.train("run-2")
    with world.database.write() as session:
        session.execute(update(AttemptRow).values(nodes=2))
    assert world.limit(gpu_hours=13).use.gpu_hours == pytest.approx(12.0, abs=0.01), "as many nodes as it had"
    world.train("run-2")


def test_limits_are_listed_with_the_project_and_replaced_as_a_whole(world):
    assert not world.projects.get(world.project_id).HasField("limits")
    world.limit(items=5, runs=0)
    found = world.projects.get(world.project_id)
    assert (found.limits.items, found.limits.runs, found.limits.HasField("gpu_hours")) == (5, 0, False)
    world.limit(checkpoint_days=3)
    found = world.projects.get(world.project_id)
    assert (found.limits.HasField("items"), found.limits.checkpoint_days) == (False, 3)
    with pytest.raises(NotFound):
        world.projects.set_limits("pr-missing", project_pb2.ProjectLimits())


def test_bytes_beyond_the_quota_are_refused(world):
    mib = 2**20
    world.upload("ds-1", 1, 3 * mib)
    assert world.limit(bytes=5 * mib).use.bytes == 3 * mib
    with pytest.raises(ResourceExhausted, match=r"is 5.0 MiB .* and it has 3.0 MiB: 2.5 MiB more take 5.5 MiB"):
        world.upload("ds-2", 1, 5 * mib // 2)
    world.upload("ds-2", 1, 2 * mib)
    world.datasets.remove("ds-1")
    world.upload("ds-3", 1, 3 * mib)


def test_how_full_quotas_are_is_a_metric(world):
    assert quotas_used(world.database) == {}
    world.limit(items=12, runs=0, checkpoint_days=3)
    assert quotas_used(world.database) == {(world.project_id, "items"): 0.25, (world.project_id, "runs"): 1.0}
    (metric,) = QuotaMetrics(world.database).collect()
    assert {sample.labels["quota"]: sample.value for sample in metric.samples} == {"items": 0.25, "runs": 1.0}


def finish(world, run_id, model_bytes):
    """Let a run succeed with a model of some bytes."""
    last = trainer_pb2.TrainingEvent(model_bytes=model_bytes)
    with world.database.write() as session:
        row = session.scalars(select(RunRow).where(RunRow.id == run_id)).one()
        row.state = "SUCCEEDED"
        add_model(session, row, last)


def test_models_count_among_the_bytes(world):
    mib = 2**20
    world.limit(bytes=5 * mib)
    world.train("run-1")
    finish(world, "run-1", 3 * mib)
    assert world.projects.get(world.project_id).use.bytes == 3 * mib
    with pytest.raises(ResourceExhausted, match=r"is 5.0 MiB .* and it has 3.0 MiB: 2.5 MiB more take 5.5 MiB"):
        world.upload("ds-1", 1, 5 * mib // 2)
    caller = Caller(token_id="t", name="t", role=rules_pb2.ROLE_ANNOTATOR, project_id=world.project_id)
    with acting(caller), pytest.raises(ResourceExhausted, match=r"and it has 3.0 MiB: 2.5 MiB more take 5.5 MiB"):
        world.models.add_imported("model-1", "m", "unet", 5 * mib // 2)
    with acting(caller):
        world.models.add_imported("model-1", "m", "unet", 2 * mib)
    with pytest.raises(ResourceExhausted, match=r"and it has 5.0 MiB: another run makes another model"):
        world.train("run-2")
    world.models.remove("run-1")
    world.train("run-2")


def test_it_is_known_how_many_more_runs_are_allowed(world):
    def allowed(project_id):
        with world.database.read() as session:
            return runs_allowed(session, project_id)

    assert allowed(None) == allowed(world.project_id) == RunsAllowed()
    world.limit(runs=2)
    assert allowed(world.project_id) == RunsAllowed(count=2)
    world.train("run-1")
    assert allowed(world.project_id) == RunsAllowed(count=1)
    world.train("run-2")
    assert allowed(world.project_id).count == 0
    assert "is 2 runs at once, and 2 have not ended" in allowed(world.project_id).refusal
    world.limit(gpu_hours=0)
    assert "is 0 GPU hours" in allowed(world.project_id).refusal
