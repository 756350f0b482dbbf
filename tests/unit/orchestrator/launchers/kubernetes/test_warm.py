"""Whether warm trainers that do not answer only start, or cannot."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes import client

from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings
from cellsparse_orchestrator.launchers.kubernetes.warm import WarmTrainers, why_none_starts

SETTINGS = ClusterSettings.model_validate(
    {
        "namespace": "ns",
        "instance": "one",
        "trainers": [{"backend": "unet", "image": "unet:1", "port": 50054, "warm_deployment": "one-unet"}],
    }
)


def deployment(replicas, **status):
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "unet"}}, "template": {}}
    return {"metadata": {"name": "one-unet"}, "spec": spec, "status": status}


def pod(state=None, **more):
    status = {
        "phase": "Pending",
        "containerStatuses": [{"name": "trainer", "image": "unet:1", "state": state or {}, **more}],
    }
    return {"metadata": {"name": "one-unet-1"}, "spec": {"containers": []}, "status": status}


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("pods", "status", "problem"),
    [
        ([], {}, ""),
        ([pod(waiting("ContainerCreating"))], {}, ""),
        ([pod(waiting("ImagePullBackOff", "no such tag"))], {}, "The image unet:1 cannot be pulled: no such tag"),
        (
            [pod(waiting("CrashLoopBackOff"), lastState={"terminated": {"reason": "OOMKilled"}})],
            {},
            "The trainer ends again and again: OOMKilled.",
        ),
        (
            [],
            {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: few"}]},
            "exceeded quota: few",
        ),
    ],
)
def test_what_keeps_it_from_starting(pods, status, problem):
    assert why_none_starts(deployment(1, **status), pods) == problem


@pytest.fixture
def cluster():
    """An API server that knows one Deployment and its pods."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            answer = self.server.answers.get(path)
            data = json.dumps(answer or {"message": "not found"}).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_it_is_read_from_the_cluster(cluster):
    configuration = client.Configuration(host=f"http://127.0.0.1:{cluster.server_port}")
    configuration.retries = 0
    warm = WarmTrainers(SETTINGS, client.ApiClient(configuration))
    assert warm.problem("stardist") == ""
    assert warm.problem("unet") == "There is no Deployment one-unet."
    cluster.answers["/apis/apps/v1/namespaces/ns/deployments/one-unet"] = deployment(0)
    assert warm.problem("unet") == ""
    cluster.answers["/apis/apps/v1/namespaces/ns/deployments/one-unet"] = deployment(1)
    cluster.answers["/api/v1/namespaces/ns/pods"] = {"items": [pod(waiting("ErrImagePull", "denied"))]}
    assert warm.problem("unet") == "The image unet:1 cannot be pulled: denied"
