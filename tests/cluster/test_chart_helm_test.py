"""`helm install` and `helm test` for real: a hook migrates PostgreSQL, the orchestrator makes a Job, a trainer trains.

The node agent runs the pods' commands as local processes; the API server, PostgreSQL and MinIO are real ones. The
backend is the one without a framework: what it learns is no concern of the chart.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client
from support.control_plane import ControlPlane
from support.helm import CHART, find_helm, helm
from support.limits import PATIENCE
from support.minio import ACCESS_KEY, REGION, SECRET_KEY, MinioServer, running_minio
from support.node_agent import NodeAgent
from support.postgres import NoPostgres, Postgres

NAME = "lab-cellsparse"
PYTHON = [sys.executable, "-m"]
IMAGES = {
    "ghcr.io/cellsparse/cellsparse-orchestrator:0.1.0": [*PYTHON, "cellsparse_orchestrator"],
    "ghcr.io/cellsparse/cellsparse-sparsifier:0.1.0": [*PYTHON, "cellsparse_sparsifier"],
    "ghcr.io/cellsparse/cellsparse-trainer-unet:0.1.0": [*PYTHON, "support.cellsparse_fake"],
}
ADDRESS = f"127.{2 + os.getpid() % 250}.200.7"
"""Where the orchestrator listens: nothing here resolves the names of Services."""


@pytest.fixture
def database() -> Iterator[Postgres]:
    try:
        with Postgres() as server:
            yield server
    except NoPostgres as error:
        pytest.skip(str(error))


@pytest.fixture
def store(tmp_path) -> Iterator[MinioServer]:
    (tmp_path / "minio").mkdir()
    with running_minio(tmp_path / "minio") as server:
        server.client().make_bucket("cellsparse")
        yield server


class Names:
    """Turns what only a cluster knows into what is there: the orchestrator's address, and the account's way in."""

    def __init__(self, plane: ControlPlane, namespace: str, kubeconfig: Path) -> None:
        self._plane = plane
        self._namespace = namespace
        self._kubeconfig = kubeconfig
        kubeconfig.touch()  # written by the first pod that asks for it: before, there is no account to write it for

    def translate(self, text: str) -> str:
        if text == str(self._kubeconfig) and not self._kubeconfig.stat().st_size:
            token = self._plane.service_account_token(self._namespace, f"{NAME}-orchestrator")
            self._kubeconfig.write_text(self._plane.kubeconfig("chart-orchestrator", token).read_text())
        return text.replace(f"{NAME}-orchestrator.{self._namespace}.svc", ADDRESS)


def test_the_database_is_migrated_and_helm_test_trains_a_model(
    control_plane, admin, namespace, database, store, tmp_path
):
    find_helm()
    core = client.CoreV1Api(admin)
    given = {"keys": {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}, "sql": {"url": database.create_database()}}
    for name, data in given.items():
        core.create_namespaced_secret(namespace, {"metadata": {"name": name}, "stringData": data})
    kubeconfig = tmp_path / "orchestrator.kubeconfig"
    values = {
        "minio.enabled": "false",
        "s3.endpoint": store.endpoint,
        "s3.secure": "false",
        "s3.region": REGION,
        "s3.existingSecret": "keys",
        "tls.kind": "none",  # the agent mounts no Secrets
        "database.kind": "external",
        "database.existingSecret": "sql",
        "orchestrator.environment.CELLSPARSE_HOST": ADDRESS,
        "orchestrator.environment.CELLSPARSE_KUBECONFIG": str(kubeconfig),
        "trainerDefaults.gpu.count": "1",
        "trainers[2].warmReplicas": "0",
    }
    options = [
        f"--values={CHART / 'ci' / 'cpu-trial.yaml'}",
        *(f"--set={key}={value}" for key, value in values.items()),
    ]
    access = [f"--namespace={namespace}", f"--kubeconfig={control_plane.kubeconfig('admin')}"]
    nodes = {f"{namespace}-node": {"nvidia.com/gpu": "1"}}
    names = Names(control_plane, namespace, kubeconfig)
    with NodeAgent(admin, namespace, tmp_path / "pods", nodes, IMAGES, translate=names.translate) as agent:
        run(agent, "install", "lab", str(CHART), *options, *access)
        (path,) = given["sql"]["url"].rsplit("/", 1)[1:]
        assert database.execute("SELECT count(*) FROM alembic_version", path) == [(1,)], "the hook has not migrated"

        assert "Phase:          Succeeded" in run(agent, "test", "lab", f"--timeout={PATIENCE:.0f}s", *access)
        assert database.execute("SELECT name FROM runs", path) == [("helm-test",)]
        stored = store.client().list_objects("cellsparse", "runs/", recursive=True)
        assert any("/model/" in found.object_name for found in stored)

        run(agent, "uninstall", "lab", *access)
        end = time.monotonic() + PATIENCE
        # The pod of a test is a hook's, which Helm leaves: its log can still be read.
        while left := {pod.metadata.name for pod in core.list_namespaced_pod(namespace).items} - {f"{NAME}-test"}:
            assert time.monotonic() < end, f"still there: {left}"
            time.sleep(0.2)


def run(agent: NodeAgent, *arguments: str) -> str:
    done = helm(*arguments, seconds=PATIENCE + 30)
    if done.returncode:
        logs = {pod.name: agent.log(pod.name)[-3000:] for pod in agent.pods() if pod.process is not None}
        pytest.fail(f"{done.stdout}{done.stderr}{logs}")
    return done.stdout
