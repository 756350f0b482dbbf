"""`cellsparse cluster check` against a real API server."""

import pytest
from kubernetes import client
from support.control_plane import BIN
from support.fake_nodes import fake_nodes
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse.cli.app import run
from cellsparse.cluster_check import judge, look

GPUS = {"check-gpu": {"resources": {"nvidia.com/gpu": "4"}}}


@pytest.fixture
def kubeconfig(control_plane):
    return str(control_plane.kubeconfig("admin"))


def test_it_says_what_this_cluster_lacks_and_ends_with_1(kubeconfig, namespace, admin, capsys):
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.memory": "1Gi"}}}
    core = client.CoreV1Api(admin)
    core.create_namespaced_resource_quota(namespace, quota)
    until(lambda: core.read_namespaced_resource_quota("team", namespace).status.hard)
    assert run(["cluster", "check", "--namespace", namespace, "--kubeconfig", kubeconfig, "--no-gpu"]) == 1
    said = capsys.readouterr().out
    assert f"ok      You may create all that the chart makes in namespace {namespace}." in said
    assert "missing The quota team leaves 1.0 GiB of requests.memory;" in said
    assert "Traceback" not in said


def test_nodes_and_their_gpus_are_counted(kubeconfig, namespace, control_plane, tmp_path):
    if not (BIN / "kwok").exists():
        pytest.skip("kwok is not built; `make tools` builds it where Go is installed")
    with fake_nodes(control_plane, tmp_path, GPUS):
        facts = until(lambda: (found := look(namespace, kubeconfig=kubeconfig)).nodes and found, PATIENCE)
        node = next(each for each in facts.nodes if each.name == "check-gpu")
        assert node.allocatable["nvidia.com/gpu"] == 4
        assert next(each.level for each in judge(facts) if each.about == "gpu") == "ok"


def test_a_service_account_without_rights_is_told_what_it_must_not_do(kubeconfig, namespace, control_plane, admin):
    client.CoreV1Api(admin).create_namespaced_service_account(namespace, {"metadata": {"name": "nobody"}})
    token = control_plane.service_account_token(namespace, "nobody")
    facts = look(namespace, kubeconfig=str(control_plane.kubeconfig("nobody", token)))
    assert "deployments" in facts.forbidden
    assert facts.nodes is None
    assert judge(facts)[1].sentence.startswith("You must not create deployments")
