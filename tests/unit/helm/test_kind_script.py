"""helm/kind.sh, with programs that write down how they are called: kind itself needs a registry to pull from."""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from support.helm import CHART, container, helm, names, pod, render
from support.limits import PATIENCE
from support.paths import ROOT

SCRIPT = ROOT / "helm" / "kind.sh"
PROGRAM = '#!/bin/sh\necho "$(basename "$0") $*" >>"$CALLS"\n'


@pytest.fixture
def programs(tmp_path):
    """A folder of programs in place of those that the script calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "basename", "dirname", "env", "grep", "sh"):
        (folder / name).symlink_to(shutil.which(name))
    for name in ("docker", "kind", "kubectl", "helm", "make"):
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o755)
    return folder


def run(programs, *arguments, **variables):
    """Run the script; return its exit code, what it says, and the calls that it made."""
    calls = programs.parent / "calls"
    calls.touch()
    environment = {**os.environ, "PATH": str(programs), "CALLS": str(calls), **variables}
    done = subprocess.run(
        [SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


def test_it_builds_and_loads_every_image_that_the_values_need(programs):
    code, said, calls = run(programs)
    assert code == 0, said
    (load,) = [call for call in calls if call.startswith("kind load")]
    wanted = {
        container(item)["image"]
        for item in render(file=CHART / "values" / "kind.yaml")
        if item["kind"] in ("Deployment", "StatefulSet") and "localhost/" in str(pod(item))
    }
    assert wanted <= set(load.split())
    built = [re.search(r"image-(\S+)", call)[1] for call in calls if call.startswith("make")]
    assert built == ["orchestrator", "sparsifier", "gateway", "trainer_cellpose", "trainer_stardist", "trainer_unet"]
    order = [" ".join(call.split()[:2]) for call in calls if not call.startswith("make")]
    assert order[:4] == ["kind get", "kind create", "kind load", "helm upgrade"]
    assert "helm test lab --kube-context kind-cellsparse --namespace imaging" in said


def test_backends_and_arguments_are_passed_on(programs):
    code, said, calls = run(programs, BACKENDS="unet", HELM_ARGS="--set auth.kind=off", NAME="try")
    assert code == 0, said
    (called,) = [call for call in calls if call.startswith("helm upgrade")]
    assert called.endswith("--set auth.kind=off")
    assert "--kube-context kind-try" in called
    given = re.search(r"--values .* --set test.backend=\S+", called)[0].split()
    done = helm("template", "lab", str(CHART), *(word.replace("helm/cellsparse", str(CHART)) for word in given))
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert done.returncode == 0, done.stderr
    assert names(objects, "Deployment") == [
        f"lab-cellsparse-{name}" for name in ("gateway", "orchestrator", "sparsifier", "unet")
    ]


def test_it_deletes_the_cluster_only_if_told_to(programs):
    assert run(programs, "--delete")[2] == ["kind delete cluster --name cellsparse"]
    code, said, _ = run(programs, "--remove")
    assert (code, "allowed: --delete" in said) == (2, True)


def test_it_says_which_program_is_missing(programs):
    (programs / "kind").unlink()
    code, said, calls = run(programs)
    assert (code, calls) == (1, [])
    assert "kind.sh needs kind, which is not installed." in said
