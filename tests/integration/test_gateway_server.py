"""The gateway as a process: headers, limits, its end, a restarted orchestrator, and the API's description."""

import json
import os
import re
import signal
import socket
import threading

import httpx
import psutil
import pytest
from support.gateway import Gateway, read_events
from support.limits import PATIENCE, QUICK
from support.orchestrator import Orchestrator, until
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.rpc import metrics
from cellsparse_gateway import health
from cellsparse_gateway.settings import GatewaySettings


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with Orchestrator(home), Gateway(home, CELLSPARSE_GATEWAY_MAX_BODY_MIB="2") as server:
        yield server


def get(url: str, **request) -> httpx.Response:
    return httpx.get(url, timeout=PATIENCE, **request)


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/v1/status", "/api/v1/nowhere", "/static/none.js", "/metrics"])
def test_every_answer_has_strict_headers(gateway, path):
    headers = get(gateway.url + path).headers
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_the_page_can_be_asked_for_its_headers_alone(gateway):
    answer = httpx.head(gateway.url, timeout=PATIENCE)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) > 0
    assert answer.content == b""


def test_large_json_is_compressed_for_who_takes_it(gateway):
    url = f"{gateway.api}/openapi.json"
    assert get(url).headers["content-encoding"] == "gzip"
    assert "content-encoding" not in get(url, headers={"Accept-Encoding": "identity"}).headers


def test_the_description_is_openapi_3_1_with_the_field_rules(gateway):
    document = get(f"{gateway.api}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert schemas["LabelPatch"]["properties"]["width"]["maximum"] == 65536
    assert schemas["TrainingSettings"]["properties"]["crop_size"]["multipleOf"] == 16
    assert schemas["RunEvent"]["properties"]["time"] == {"type": "string", "format": "date-time"}
    text = json.dumps(document)
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) <= set(schemas)
    edits = document["paths"]["/api/v1/images/{image}/edits"]["post"]
    body = edits["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["patches"]["maxItems"] == 256
    assert "image_id" not in body["properties"]


def test_the_viewer_of_the_description_needs_nothing_from_elsewhere(gateway):
    page = get(f"{gateway.api}/docs")
    assert page.status_code == 200
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 4
    for file in files:
        assert file.startswith(("/api/v1/docs/", "data:"))
        if not file.startswith("data:"):
            assert get(gateway.url + file).status_code == 200


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_that_is_too_large_is_refused(gateway, stated):
    content = bytes(3 * 2**20)
    project = httpx.post(f"{gateway.api}/projects", json={"name": "x"}, timeout=PATIENCE).json()["id"]
    url = f"{gateway.api}/projects/{project}/images?name=a.tif"
    answer = httpx.post(url, content=content if stated else iter([content[: 2**20]] * 3), timeout=PATIENCE)
    assert answer.status_code == 413
    assert "larger than 2 MiB" in answer.json()["detail"]


def test_a_client_that_goes_away_in_an_upload_leaves_nothing(gateway):
    project = httpx.post(f"{gateway.api}/projects", json={"name": "x"}, timeout=PATIENCE).json()["id"]

    def broken():
        yield encode_tiff(blobs(64, seed=0)[0])
        raise OSError("the client is gone")

    with pytest.raises(OSError, match="gone"):
        httpx.post(f"{gateway.api}/projects/{project}/images?name=a.tif", content=broken(), timeout=PATIENCE)
    assert get(f"{gateway.api}/projects/{project}/images").json()["images"] == []
    assert get(f"{gateway.url}/healthz").status_code == 200


def test_metrics_count_requests_by_route(gateway):
    get(f"{gateway.api}/projects/nothing-here")
    text = get(f"{gateway.url}/metrics").text
    assert 'cellsparse_http_seconds_count{method="GET",route="/api/v1/projects/{project}",status="404"}' in text
    assert "nothing-here" not in text


def test_metrics_are_those_of_the_table(gateway):
    text = get(f"{gateway.url}/metrics").text
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"^(cellsparse_\w+)", text, re.MULTILINE)}
    listed = re.findall(r"^\| (cellsparse_\w+) \| \w+ \| [\w, ]*\| gateway \|", metrics.__doc__, re.MULTILINE)
    assert {name for name in told if not name.endswith("_created")} == set(listed)


def test_the_images_health_check(gateway):
    host, _, port = gateway.address.rpartition(":")
    settings = GatewaySettings(host=host, port=int(port))
    assert health.check(settings) == ""
    with socket.socket() as closed:
        closed.bind((host, 0))
        nobody = GatewaySettings(host=host, port=closed.getsockname()[1])
        assert "does not answer" in health.check(nobody)


def slow_run(orchestrator: Orchestrator) -> str:
    """A run that trains for as long as a test needs it."""
    orchestrator.healthy("unet")
    return orchestrator.train(orchestrator.upload().id, steps=1_000_000).id


def test_a_signal_ends_open_streams_at_once_with_code_0(tmp_path):
    with Orchestrator(tmp_path) as orchestrator, Gateway(tmp_path) as gateway:
        run, received, ended = slow_run(orchestrator), threading.Event(), []

        def watch() -> None:
            with httpx.Client(base_url=gateway.api) as client:
                for event in read_events(client, f"/runs/{run}/events"):
                    received.set()
                    ended.append(event.name)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        assert received.wait(PATIENCE)
        os.kill(gateway.pid, signal.SIGTERM)
        assert gateway.wait(PATIENCE) == 0
        watcher.join(PATIENCE)
        assert not watcher.is_alive()
        assert "end" not in ended  # so that clients connect again


def test_it_finds_an_orchestrator_that_restarts_at_another_port(tmp_path):
    with Gateway(tmp_path) as gateway:
        assert get(f"{gateway.url}/healthz").status_code == 200
        unready = get(f"{gateway.url}/readyz")
        assert (unready.status_code, unready.headers["retry-after"]) == (503, "1")
        assert "cellsparse up" in unready.json()["detail"]
        with Orchestrator(tmp_path) as orchestrator:
            first = orchestrator.address
            assert get(f"{gateway.url}/readyz").status_code == 200
            project = httpx.post(f"{gateway.api}/projects", json={"name": "x"}, timeout=PATIENCE).json()["id"]
            run = slow_run(orchestrator)
            with httpx.Client(base_url=gateway.api) as client:
                events = read_events(client, f"/runs/{run}/events")
                last = next(events)
                orchestrator.kill()
                # The stream ends without the event `end`, so that a browser connects again.
                names = [event.name for event in events]
                assert "end" not in names
        assert get(f"{gateway.api}/projects").status_code == 503
        with Orchestrator(tmp_path) as orchestrator:
            assert orchestrator.address != first
            until(lambda: get(f"{gateway.url}/readyz").status_code == 200)
            assert get(f"{gateway.api}/projects/{project}").json()["name"] == "x"
            with httpx.Client(base_url=gateway.api) as client:
                resumed = read_events(client, f"/runs/{run}/events", headers={"Last-Event-ID": last.id})
                assert int(next(resumed).id) > int(last.id)


def test_a_port_that_is_taken_is_one_sentence(gateway, tmp_path):
    port = gateway.address.rpartition(":")[2]
    with pytest.raises(RuntimeError, match=rf"cannot listen on 127\.0\.0\.1:{port}") as caught:
        Gateway(tmp_path, CELLSPARSE_GATEWAY_PORT=port).__enter__()
    assert "Traceback" not in str(caught.value)


def test_an_upload_is_not_held_in_memory(tmp_path):
    with Orchestrator(tmp_path, CELLSPARSE_MAX_FILE_MIB="60") as orchestrator, Gateway(tmp_path) as gateway:
        assert orchestrator.running()
        project = httpx.post(f"{gateway.api}/projects", json={"name": "x"}, timeout=PATIENCE).json()["id"]
        before = psutil.Process(gateway.pid).memory_info().rss
        # Random bytes in a plain TIFF's clothes: refused by the orchestrator when all of it has arrived.
        content = iter([os.urandom(2**20)] * 200)
        answer = httpx.post(f"{gateway.api}/projects/{project}/images?name=a.tif", content=content, timeout=PATIENCE)
        assert answer.status_code in (413, 422)
        assert psutil.Process(gateway.pid).memory_info().rss - before < 100 * 2**20


def test_an_upload_that_never_ends_does_not_keep_it_from_ending(tmp_path):
    with Orchestrator(tmp_path), Gateway(tmp_path, CELLSPARSE_GATEWAY_DRAIN_SECONDS="1") as gateway:
        project = httpx.post(f"{gateway.api}/projects", json={"name": "x"}, timeout=PATIENCE).json()["id"]
        host, _, port = gateway.address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as connection:
            head = f"POST /api/v1/projects/{project}/images?name=a.tif HTTP/1.1\r\nHost: {gateway.address}\r\n"
            connection.sendall(f"{head}Content-Length: 1000000\r\n\r\nthe first bytes".encode())
            # The request itself, and the one that asks.
            until(lambda: "cellsparse_http_running 2.0" in get(f"{gateway.url}/metrics").text)
            os.kill(gateway.pid, signal.SIGTERM)
            assert gateway.wait(QUICK) == 0
