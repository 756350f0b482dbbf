"""The Job that brings database and store back to an earlier release, before `helm rollback`."""

import pytest
from support.helm import refusal, render

NAME = "lab-cellsparse"


def found(objects, kind, name):
    return next((each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)), None)


def test_without_a_release_there_is_none():
    objects = render()
    assert found(objects, "Job", f"{NAME}-rollback") is None
    assert found(objects, "Deployment", f"{NAME}-orchestrator")["spec"]["replicas"] == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_orchestrator_ends_and_a_job_goes_back(kind):
    objects = render({"database": {"kind": kind}, "rollback": {"to": "0.1.0", "lose": True}})
    assert found(objects, "Deployment", f"{NAME}-orchestrator")["spec"]["replicas"] == 0
    job = found(objects, "Job", f"{NAME}-rollback")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["rollback", "--to", "0.1.0", "--lose"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert ("persistentVolumeClaim" in volumes["home"]) == (kind == "sqlite")
    # It ends trainings, as the orchestrator would.
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (f"{NAME}-orchestrator", True)
    assert volumes["cluster"]["configMap"]["name"] == f"{NAME}-cluster"
    policy = found(objects, "NetworkPolicy", f"{NAME}-rollback")["spec"]
    assert policy["egress"] == [{"ports": [{"port": 443}, {"port": 6443}]}]
    credentials = [source["secret"]["name"] for source in volumes["credentials"]["projected"]["sources"]]
    assert (f"{NAME}-database" in credentials) == (kind == "postgresql")


def test_what_is_no_release_is_refused():
    assert "to" in refusal({"rollback": {"to": "the last one"}})
