"""Health of a real orchestrator: it lives, answers calls, has all that it needs; and what clients are told."""

import shutil
import socket
import urllib.error
import urllib.request

from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, messages, refused, until

from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2

SERVICES = ("cellsparse.v1.OrchestratorService", "cellsparse.v1.DatasetService")


def health(orchestrator):
    """Return what it answers for itself, for calls, and for two of its services."""
    stub = health_pb2_grpc.HealthStub(orchestrator.channel)
    names = ("", "answering", *SERVICES)
    answers = (stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE) for name in names)
    return [answer.status == health_pb2.HealthCheckResponse.SERVING for answer in answers]


def status(port, path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE).status
    except urllib.error.HTTPError as error:
        return error.code


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_a_store_that_is_away_is_told_by_health_alone(tmp_path):
    port = free_port()
    with Orchestrator(tmp_path / "home", CELLSPARSE_LAUNCHER="static", CELLSPARSE_METRICS_PORT=port) as orchestrator:
        dataset = orchestrator.upload()
        assert health(orchestrator) == [True] * 4
        away = tmp_path / "away"
        shutil.move(orchestrator.store, away)
        until(lambda: health(orchestrator) == [True, True, False, False])
        assert [status(port, path) for path in ("health", "answering", "ready")] == [200, 200, 503]
        # It answers what it can, and what it cannot in a sentence that names no folder of its machine.
        page = orchestrator_pb2.ListRunsRequest(page=common_pb2.PageRequest())
        assert not orchestrator.runs.ListRuns(page, timeout=PATIENCE).runs
        request = dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset.id)
        error = refused(orchestrator.datasets.ListDatasetItems, request)
        assert error.message == "The folder of the store is missing; is its disk mounted?"
        shutil.move(away, orchestrator.store)
        until(lambda: health(orchestrator) == [True] * 4)
        assert status(port, "ready") == 200
        # A folder of its own that cannot be made.
        spool = orchestrator.home / "uploads"
        shutil.rmtree(spool, ignore_errors=True)
        spool.touch()
        error = refused(orchestrator.datasets.CreateDataset, messages())
        assert error.message == "Cannot write CELLSPARSE_HOME/uploads: File exists."
        assert str(tmp_path) in orchestrator.log.read_text()  # who runs it finds the path
