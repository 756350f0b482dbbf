"""All pods of all value sets, by the rules of the pod security level "restricted" and our own."""

import pytest
from support.helm import PLATFORMS, VALUE_SETS, container, pod, render


@pytest.mark.parametrize("file", VALUE_SETS + PLATFORMS, ids=lambda file: file.stem)
def test_every_pod_is_restricted_and_every_container_bounded(file):
    workloads = [item for item in render(file=file) if item["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")]
    assert len(workloads) >= 4
    for workload in workloads:
        own, name = container(workload), workload["metadata"]["name"]
        security = pod(workload)["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert ("runAsUser" in security) != (file.stem == "openshift"), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert own["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "memory" in own["resources"]["limits"], name
        assert {"cpu", "memory"} <= own["resources"]["requests"].keys(), name
        kinds = {key for volume in pod(workload)["volumes"] for key in volume if key != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, name
