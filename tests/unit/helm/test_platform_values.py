"""Value sets for kinds of clusters: what each is there for."""

import subprocess
import sys

import pytest
import yaml
from support.helm import PLATFORMS, ROOT, container, names, one, render
from support.limits import PATIENCE


def images(file) -> set[str]:
    found = set()
    for workload in render(file=file):
        spec = workload.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        pod = spec.get("template", {}).get("spec", spec)
        found |= {each["image"] for each in [*pod.get("containers", []), *pod.get("initContainers", [])]}
    return found


def values(name: str):
    (file,) = [each for each in PLATFORMS if each.stem == name]
    return file


def test_there_is_one_for_each_platform():
    assert [file.stem for file in PLATFORMS] == ["airgapped", "aks", "eks", "gke", "kind", "openshift"]


def test_without_a_way_out_every_image_is_of_the_registry_inside():
    found = images(values("airgapped"))
    assert len(found) >= 6
    assert all(image.startswith("registry.lab.example/") for image in found)


def test_a_command_lists_what_to_copy_to_the_registry_inside():
    command = [sys.executable, ROOT / "helm" / "images.py", values("airgapped")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.splitlines()
    pairs = [line.split() for line in lines]
    assert {target for _, target in pairs} >= images(values("airgapped"))
    assert ["docker.io/library/postgres:17.6", "registry.lab.example/library/postgres:17.6"] in pairs
    # Training Jobs are the orchestrator's; their images stand in its settings only.
    assert all(f"cellsparse-trainer-{name}:" in str(pairs) for name in ("cellpose", "stardist", "unet"))


def test_in_kind_our_images_are_not_pulled_and_no_gpu_is_asked_for():
    ours = {image for image in images(values("kind")) if "minio" not in image}
    assert all(image.startswith("localhost/cellsparse/") and image.endswith(":dev") for image in ours)
    objects = render(file=values("kind"))
    assert "nvidia" not in str([container(each)["resources"] for each in objects if each["kind"] == "Deployment"])
    jobs = yaml.safe_load(one(objects, "ConfigMap", "lab-cellsparse-cluster")["data"]["cluster.yaml"])
    assert {trainer["gpu"]["count"] for trainer in jobs["trainers"]} == {0}


@pytest.mark.parametrize("name", ["eks", "gke", "aks"])
def test_clouds_have_two_orchestrators_tls_and_a_database_of_their_own(name):
    objects = render(file=values(name))
    (orchestrator,) = [
        each
        for each in objects
        if each["metadata"]["name"] == "lab-cellsparse-orchestrator" and each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert orchestrator["spec"]["replicas"] == 2
    assert "lab-cellsparse-tls-orchestrator" in names(objects, "Secret")
    assert "lab-cellsparse-postgresql" not in names(objects, "StatefulSet")
    assert ("lab-cellsparse-minio" in str(names(objects, "StatefulSet") + names(objects, "Deployment"))) == (
        name == "aks"
    )
