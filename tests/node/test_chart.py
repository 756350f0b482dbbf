"""The chart on a real node: it installs, trains in `helm test`, and its pods have no rights that they do not need."""

import pytest
from kubernetes.client.exceptions import ApiException
from support.limits import LONG_PATIENCE
from support.real_node.cluster import NAMESPACE


def test_helm_test_trains_a_model_in_a_job(release):
    assert "Phase:          Succeeded" in release.helm("test", "lab", f"--timeout={LONG_PATIENCE:.0f}s")


@pytest.mark.parametrize("component", ["orchestrator", "sparsifier", "gateway", "trainer", "minio"])
def test_pods_run_as_a_user_without_rights_on_a_read_only_root(release, component):
    (pod,) = release.pods(component)
    code, output = release.run_in(
        pod.metadata.name, "sh", "-c", "id -u; touch /usr/here; grep CapEff /proc/self/status"
    )
    lines = output.split("\n")
    assert lines[0] == "10001"
    assert "Read-only file system" in output
    assert "CapEff:\t0000000000000000" in output
    assert code == 0


def test_the_namespace_takes_no_pod_with_rights(release):
    pod = {
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "root", "image": "localhost/pause:1"}]},
    }
    with pytest.raises(ApiException) as refused:
        release.core.create_namespaced_pod(NAMESPACE, pod)
    assert refused.value.status == 403
    assert "runAsNonRoot" in refused.value.body
