"""What Prometheus reads from real services: every name of the table, and no other."""

import re
import socket
import threading
import urllib.request

import grpc
import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, state_names, until
from support.server_process import ServerProcess

from cellsparse_common.errors import Unavailable
from cellsparse_common.rpc import metrics
from cellsparse_common.rpc.metrics import new_registry, serve_metrics
from cellsparse_proto.v1 import admin_pb2, dataset_pb2, orchestrator_pb2, project_pb2, sparsifier_pb2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def scrape(port):
    """All samples: {name: {labels: value}}."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def health(port):
    """The HTTP status that a kubelet gets."""
    return urllib3.request("GET", f"http://127.0.0.1:{port}/health", timeout=PATIENCE, retries=False).status


def table():
    """The rows of the documentation, by name: kind, labels, service."""
    rows = re.findall(r"^\| (cellsparse_\w+) \| (\w+) \| ([\w, ]*?) ?\| (\w+) \|", metrics.__doc__, re.MULTILINE)
    assert len(rows) > 10
    return {name: (kind, {label for label in labels.split(", ") if label}, where) for name, kind, labels, where in rows}


def documented(samples):
    """Names with labels of ours, as the table writes them."""
    found = {}
    for name, values in samples.items():
        short = re.sub(r"_(bucket|sum|count)$", "", name)
        if name.startswith("cellsparse_") and not name.endswith("_created"):
            labels = {label for labels in values for label, _ in labels}
            found[short] = found.get(short, set()) | (labels - {"le"})
    return found


def test_every_service_tells_what_the_table_says(tmp_path):
    ports = {name: free_port() for name in ("orchestrator", "trainer", "sparsifier")}
    store = tmp_path / "home" / "store"
    for name in ("trainer", "sparsifier"):
        (tmp_path / name).mkdir()

    def port(name):
        return {"CELLSPARSE_METRICS_PORT": ports[name]}

    with (
        ServerProcess(["-m", "support.cellsparse_fake"], store, tmp_path / "trainer", **port("trainer")) as trainer,
        ServerProcess(
            ["-m", "cellsparse_sparsifier"], store, tmp_path / "sparsifier", **port("sparsifier")
        ) as sparsifier,
        Orchestrator(
            tmp_path / "home",
            CELLSPARSE_LAUNCHER="static",
            CELLSPARSE_TRAINERS=f"unet={trainer.address}",
            CELLSPARSE_SPARSIFIER=sparsifier.address,
            **port("orchestrator"),
        ) as orchestrator,
    ):
        orchestrator.healthy("unet")
        orchestrator.healthy("sparsifier")
        dataset = orchestrator.upload()
        asked = project_pb2.CreateProjectRequest(name="full")
        project = orchestrator.projects.CreateProject(asked, timeout=PATIENCE).project
        limits = admin_pb2.SetProjectLimitsRequest(project_id=project.id, limits={"items": 10})
        orchestrator.admin.SetProjectLimits(limits, timeout=PATIENCE)
        request = dataset_pb2.CreateSparseDatasetRequest(
            dataset_id=dataset.id,
            settings=sparsifier_pb2.SparsifySettings(
                mode=sparsifier_pb2.SELECTION_MODE_MINMAX, k=1, background=sparsifier_pb2.BACKGROUND_RULE_RING
            ),
        )
        list(orchestrator.datasets.CreateSparseDataset(request, timeout=PATIENCE))
        run = orchestrator.train(dataset.id, steps=30, learning_rate=0.9)
        assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"
        with pytest.raises(grpc.RpcError):
            orchestrator.run("run-none")
        scraped = until(lambda: (found := {name: scrape(port) for name, port in ports.items()}) and found)

        assert [health(port) for port in ports.values()] == [200] * 3

    for service, samples in scraped.items():
        expected = {name: labels for name, (_, labels, where) in table().items() if where in ("all", service)}
        assert documented(samples) == expected, service
        assert "process_cpu_seconds_total" in samples

    ours, trained, sparse = scraped["orchestrator"], scraped["trainer"], scraped["sparsifier"]
    assert ours["cellsparse_runs"][("state", "SUCCEEDED"),] == 1
    assert ours["cellsparse_queue_length"][()] == 0
    assert (ours["cellsparse_leads"][()], ours["cellsparse_ready"][()], ours["cellsparse_store_away"][()]) == (1, 1, 0)
    assert ours["cellsparse_queue_seconds_count"][()] == 1
    assert ours["cellsparse_attempts_total"] == {(("backend", "unet"), ("reason", "SUCCEEDED")): 1}
    assert ours["cellsparse_reconcile_seconds_count"][()] > 1
    assert ours["cellsparse_quota_used"] == {(("project", project.id), ("quota", "items")): 0}
    calls = ours["cellsparse_call_seconds_count"]
    assert calls[("code", "NOT_FOUND"), ("method", "OrchestratorService/GetRun")] == 1
    assert ours["cellsparse_calls_running"][("method", "OrchestratorService/WatchRun"),] == 0
    assert trained["cellsparse_training_steps_total"][()] == 30
    assert 0 < trained["cellsparse_training_loss"][()] < 10
    assert trained["cellsparse_training_step_seconds"][()] >= 0.05  # the fake backend sleeps so long
    items = 2  # of train and val
    assert sparse["cellsparse_sparsified_images_total"][()] == items
    assert sparse["cellsparse_sparsified_pixels_total"][()] == items * 64 * 64


def test_a_run_that_waits_is_counted_and_an_outage_costs_no_scrape(postgres, tmp_path):
    port = free_port()
    settings = {
        "CELLSPARSE_LAUNCHER": "static",
        "CELLSPARSE_TRAINERS": "unet=127.0.0.1:9",
        "CELLSPARSE_METRICS_PORT": port,
        "CELLSPARSE_DATABASE_URL": postgres.create_database(),
    }
    with Orchestrator(tmp_path / "home", **settings) as orchestrator:
        dataset = orchestrator.upload().id
        for _ in range(3):
            orchestrator.train(dataset)
        until(lambda: scrape(port)["cellsparse_runs"][("state", "STARTING"),] == 1)
        assert scrape(port)["cellsparse_queue_length"][()] == 2
        for run in orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs:
            orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
        until(lambda: scrape(port)["cellsparse_runs"][("state", "CANCELLED"),] == 3)
        postgres.execute(
            f"ALTER DATABASE {settings['CELLSPARSE_DATABASE_URL'].rpartition('/')[2]} ALLOW_CONNECTIONS false"
        )
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cellsparse-orchestrator'"
        )
        until(lambda: "cellsparse_runs" not in scrape(port))


def test_nothing_listens_without_a_port_and_a_taken_one_is_one_sentence():
    serve_metrics(new_registry(), "127.0.0.1", 0)()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"Metrics cannot be served on 127.0.0.1:{port}: Address already in use"):
            serve_metrics(new_registry(), "127.0.0.1", port)


def test_the_port_for_metrics_answers_for_health_too():
    healthy = threading.Event()
    port = free_port()
    end = serve_metrics(new_registry(), "127.0.0.1", int(port), healthy.is_set)
    try:
        assert health(port) == 503
        healthy.set()
        assert health(port) == 200
        assert "process_cpu_seconds_total" in scrape(port)
    finally:
        end()
