"""What a cluster lacks, in sentences; no cluster is asked."""

import os
from dataclasses import replace

import pytest
import yaml
from support.helm import CHART, container, render

from cellsparse.cluster_check import (
    INSTALLATION,
    OLDEST,
    OPTIONAL,
    RIGHTS,
    TRAINING,
    Facts,
    Node,
    Queue,
    is_complete,
    judge,
    look,
    quantity,
)
from cellsparse.errors import InvalidArgument

GIB = 2**30
LARGE = Node(name="large", allocatable={"cpu": 32.0, "memory": 128.0 * GIB, "nvidia.com/gpu": 8})
PLAIN = Node(name="plain", allocatable={"cpu": 8.0, "memory": 64.0 * GIB})
GOOD = Facts(
    version="v1.33.1",
    namespace="imaging",
    nodes=[LARGE],
    classes={"standard": True},
    groups=[*OPTIONAL],
    queues={"training": Queue(resources=["cpu", "memory", "nvidia.com/gpu"])},
    quotas={},
    runtime_classes=[],
    ingress_classes=["nginx"],
)


def sentences(facts, level, **how) -> list[str]:
    return [finding.sentence for finding in judge(facts, **how) if finding.level == level]


def test_a_cluster_that_has_everything_lacks_nothing():
    findings = judge(GOOD)
    assert is_complete(findings)
    assert {finding.level for finding in findings} == {"ok"}
    assert "Nodes offer 8 x nvidia.com/gpu" in str(findings)
    assert "LocalQueues: training." in str(findings)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": "v1.26.9+k3s1"}, "Kubernetes is v1.26.9+k3s1; the chart needs 1.27 or newer."),
        ({"forbidden": ["roles", "secrets"]}, "You must not create roles, secrets in namespace imaging."),
        ({"nodes": []}, "No node is ready."),
        ({"classes": {"fast": False}}, "No storage class is the default: name one of fast in `storageClass`."),
        ({"classes": {}}, "There is no storage class, so volumes of store and database will wait for ever"),
        (
            {"nodes": [Node(name="small", allocatable={"cpu": 4, "memory": 4 * GIB, "nvidia.com/gpu": 1})]},
            "No node has room for a training, which requests 2 cores and 8.0 GiB; the largest, small, has 4 cores and",
        ),
        (
            {"nodes": [PLAIN]},
            "There is no GPU: no node offers one",
        ),
        (
            {"nodes": [replace(PLAIN, labels={"feature.node.kubernetes.io/pci-10de.present": "true"})]},
            "There is no GPU: plain has a card that nothing offers",
        ),
        (
            {"quotas": {"team": {"requests.nvidia.com/gpu": 0.0}}},
            "The quota team leaves 0 of requests.nvidia.com/gpu; the services and one training request 1 by default.",
        ),
        (
            {"quotas": {"team": {"requests.memory": 4.0 * GIB, "pods": 1}}},
            "The quota team leaves 4.0 GiB of requests.memory; the services and one training request 17.8 GiB",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(change, sentence):
    findings = judge(replace(GOOD, **change))
    (missing,) = [finding.sentence for finding in findings if finding.level == "missing"]
    assert missing.startswith(sentence)
    assert not is_complete(findings)


def test_without_gpus_none_are_missing():
    assert sentences(replace(GOOD, nodes=[PLAIN], quotas={"q": {}}), "missing", gpu=False) == []


def test_slices_taints_and_runtime_classes_are_worth_a_note():
    sliced = Node(
        name="a",
        allocatable={"cpu": 8, "memory": 64 * GIB, "nvidia.com/gpu": 0, "nvidia.com/mig-1g.10gb": 7},
        taints=["nvidia.com/gpu"],
    )
    notes = " ".join(sentences(replace(GOOD, nodes=[sliced], runtime_classes=["nvidia"]), "note"))
    assert "set `trainerDefaults.gpu.resource` to one of nvidia.com/mig-1g.10gb" in notes
    assert "taints nvidia.com/gpu: set `trainerDefaults.tolerations`" in notes
    assert "RuntimeClass nvidia" in notes


def test_extensions_are_notes_that_say_what_happens_without():
    notes = sentences(replace(GOOD, groups=[], queues=None), "note")
    assert len(notes) == len(OPTIONAL)
    assert "Kueue is not installed; trainings wait in the orchestrator's own queue (`kueue.queue`)." in notes
    assert "has no LocalQueue" in " ".join(sentences(replace(GOOD, queues={}), "note"))


@pytest.mark.parametrize(
    ("change", "level", "sentence"),
    [
        ({}, "ok", "The LocalQueue training takes Jobs."),
        ({"queues": {"training": Queue()}}, "ok", "The LocalQueue training takes Jobs."),
        ({"groups": [], "queues": None}, "missing", "The LocalQueue training needs Kueue, which is not installed."),
        ({"queues": None}, "note", "You must not list LocalQueues, so training was not looked at."),
        ({"queues": {"other": Queue()}}, "missing", "Namespace imaging has no LocalQueue training"),
        (
            {"queues": {"training": Queue(problem="Can't submit new workloads to clusterQueue")}},
            "missing",
            "The LocalQueue training takes no Jobs: Can't submit new workloads to clusterQueue.",
        ),
        (
            {"queues": {"training": Queue(resources=["cpu"])}},
            "missing",
            "The LocalQueue training has no quota for memory, nvidia.com/gpu, which trainings request",
        ),
    ],
)
def test_queues_that_are_to_admit_trainings(change, level, sentence):
    found = judge(replace(GOOD, **change), queues=["training"])[-1]
    assert (found.level, found.about) == (level, "queue training")
    assert found.sentence.startswith(sentence)


def test_what_may_not_be_read_is_a_note_and_nothing_is_missing():
    blind = replace(GOOD, nodes=None, classes=None, quotas=None, runtime_classes=None, ingress_classes=None)
    assert len(sentences(blind, "note")) == 3
    assert is_complete(judge(blind))


@pytest.mark.parametrize(
    ("text", "amount"),
    [("250m", 0.25), ("16Gi", 16 * GIB), ("2", 2), ("1k", 1000), ("1e3", 1000), ("x", 0), ("5Zi", 0)],
)
def test_amounts_are_read_as_kubernetes_writes_them(text, amount):
    assert quantity(text) == amount


def test_what_it_compares_with_is_what_the_chart_requests():
    needed = {"cpu": 0.0, "memory": 0.0}
    objects = render()
    for workload in objects:
        if workload["kind"] in ("Deployment", "StatefulSet"):
            for name in needed:
                requested = quantity(container(workload)["resources"]["requests"][name])
                needed[name] += requested * workload["spec"].get("replicas", 1)
    assert needed == INSTALLATION
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {name: quantity(values["trainerDefaults"]["resources"]["requests"][name]) for name in TRAINING} == TRAINING
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert oldest == f">={OLDEST[0]}.{OLDEST[1]}.0-0"


def test_rights_are_asked_for_all_that_the_chart_makes():
    asked = {(group, resource) for group, resources in RIGHTS.items() for resource in resources}
    for made in render({"database": {"kind": "postgresql"}}):
        group = made["apiVersion"].rpartition("/")[0]
        plural = {"NetworkPolicy": "networkpolicies"}.get(made["kind"], f"{made['kind'].lower()}s")
        assert made["kind"] == "Pod" or (group, plural) in asked, made["kind"]


def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(tmp_path):
    with pytest.raises(InvalidArgument, match="The kubeconfig cannot be used"):
        look("imaging", kubeconfig=str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidArgument, match=r"The kubeconfig cannot be used: '.*pipe' is no file"):
        look("imaging", kubeconfig=str(tmp_path / "pipe"))
