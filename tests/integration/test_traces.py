"""One trace over all services, received by a collector on loopback; and a collector that fails harms nothing."""

import os
import signal

import httpx
import pytest
from support.gateway import Gateway
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, until
from support.server_process import ServerProcess
from support.tiny_dataset import blobs
from support.trace_collector import TraceCollector, parents

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_proto.v1 import sparsifier_pb2, sparsifier_pb2_grpc

SPARSIFIER = ["-m", "cellsparse_sparsifier"]


@pytest.fixture(scope="module")
def collector():
    with TraceCollector() as found:
        yield found


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory, collector):
    with Orchestrator(tmp_path_factory.mktemp("home"), **collector.environment) as found:
        found.healthy("unet")
        yield found


@pytest.fixture(scope="module")
def api(orchestrator, collector):
    with (
        Gateway(orchestrator.home, **collector.environment) as gateway,
        httpx.Client(base_url=gateway.api, timeout=PATIENCE) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def run(api, orchestrator):
    """Id of a training that was asked for over HTTP and has succeeded."""
    dataset = orchestrator.upload()
    asked = {"dataset_id": dataset.id, "settings": {"unet": {}, "steps": 3}}
    run_id = api.post("/runs", json=asked).raise_for_status().json()["id"]
    until(lambda: api.get(f"/runs/{run_id}").json()["state"] == "RUN_STATE_SUCCEEDED", LONG_PATIENCE)
    return run_id


def find(collector, service: str, name: str, run_id: str = ""):
    """Wait for a span of a service, and of a run if one is given."""

    def look():
        for span in collector.spans:
            wanted = not run_id or span.attributes.get("cellsparse.run_id") == run_id
            if (span.service, span.name) == (service, name) and wanted:
                return span
        return None

    return until(look)


def test_a_training_is_one_trace_from_the_page_to_the_child(collector, run):
    train = find(collector, "cellsparse-support.cellsparse_fake-worker", "train", run)
    above = until(lambda: _whole(train, collector))
    assert [(span.service, span.name) for span in above] == [
        ("cellsparse-trainer-unet", "cellsparse.v1.TrainerService/StartTraining"),
        ("cellsparse-orchestrator", "cellsparse.v1.TrainerService/StartTraining"),
        ("cellsparse-orchestrator", "start attempt"),
        ("cellsparse-orchestrator", "cellsparse.v1.OrchestratorService/CreateRun"),
        ("cellsparse-gateway", "cellsparse.v1.OrchestratorService/CreateRun"),
        ("cellsparse-gateway", "POST /api/v1/runs"),
    ]
    assert above[-1].attributes["http.response.status_code"] == 201
    names = {span.name for span in collector.trace(train)}
    assert {"prepare", "steps", "publish", "store put", "store get", "SQL write"} <= names
    assert not any(span.failed for span in collector.trace(train))


def test_a_prediction_is_one_trace_from_the_caller_s_own_span_to_the_child(collector, api, run):
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    pixels, _ = blobs(64, seed=5)
    api.post("/predictions", params={"model_id": run}, content=encode_tiff(pixels), headers=headers).raise_for_status()
    child = find(collector, "cellsparse-trainer-unet-inference", "prediction")
    assert child.trace == trace
    services = until(
        lambda: len(found := {span.service for span in collector.trace(child)}) == 4 and found,
    )
    assert services == {
        "cellsparse-gateway",
        "cellsparse-orchestrator",
        "cellsparse-trainer-unet",
        "cellsparse-trainer-unet-inference",
    }
    first = find(collector, "cellsparse-gateway", "POST /api/v1/predictions")
    assert (first.trace, first.parent) == (trace, "b7ad6b7169203331")


def test_a_refusal_says_its_status_and_is_no_failure_of_the_server(collector, api):
    assert api.get("/models/none-such").status_code == 404
    server = find(collector, "cellsparse-orchestrator", "cellsparse.v1.OrchestratorService/GetModel")
    assert (server.attributes["rpc.grpc.status_code"], server.failed) == (5, False)
    assert find(collector, "cellsparse-gateway", "cellsparse.v1.OrchestratorService/GetModel").failed
    assert not find(collector, "cellsparse-gateway", "GET /api/v1/models/{model}").failed


def test_what_services_do_on_their_own_account_begins_no_trace(collector, run):
    roots = {(span.service, span.name) for span in collector.spans if not span.parent}
    assert not {root for root in roots if root[0].startswith("cellsparse-trainer")}
    assert ("cellsparse-gateway", "POST /api/v1/runs") in roots


def test_spans_hold_no_contents_and_no_secrets(collector, api):
    headers = {"authorization": "Bearer cellsparse-secret-of-a-caller"}
    asked = {"name": "of a patient", "nane": "x"}
    assert api.post("/projects", json=asked, params={"token": "in-a-query"}, headers=headers).status_code == 422
    find(collector, "cellsparse-gateway", "POST /api/v1/projects")
    text = str(collector.spans)
    for secret in ("secret-of-a-caller", "in-a-query", "patient", "nane"):
        assert secret not in text, secret


@pytest.mark.parametrize("answers", [None, False], ids=["nobody listens", "the collector hangs"])
def test_a_collector_that_fails_delays_neither_calls_nor_the_end(tmp_path, answers):
    with TraceCollector(answers=False) as hanging:
        environment = hanging.environment | {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        if answers is None:
            environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        with ServerProcess(SPARSIFIER, tmp_path / "store", tmp_path, **environment) as server:
            with open_channel(server.address) as channel:
                stub = sparsifier_pb2_grpc.SparsifierServiceStub(channel)
                for _ in range(3):
                    with pytest.raises(Exception, match="image is missing"):
                        stub.Sparsify(sparsifier_pb2.SparsifyRequest(), timeout=PATIENCE)
            os.kill(server.pid, signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
            assert "Traceback" not in server.log.read_text()


def _whole(span, collector):
    """The spans above one, once all of them have come in."""
    try:
        return parents(span, collector.spans)
    except KeyError:
        return None
