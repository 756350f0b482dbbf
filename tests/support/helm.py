"""Renders the chart with the real helm."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.limits import PATIENCE

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".tools" / "bin" / "helm"
CHART = ROOT / "helm" / "cellsparse"
VALUE_SETS = tuple(sorted(CHART.glob("ci/*.yaml")))
PLATFORMS = tuple(sorted(CHART.glob("values/*.yaml")))
"""Value sets for kinds of clusters, which hold what the tests' own cluster has not."""
Object = dict[str, Any]


def find_helm() -> Path:
    """The program; skips the test where it is not there."""
    if not PROGRAM.is_file():
        pytest.skip("helm is not built; `make helm` builds it where Go is installed")
    return PROGRAM


def helm(*arguments: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller judges its exit code."""
    return subprocess.run([find_helm(), *arguments], capture_output=True, text=True, timeout=seconds, check=False)


def render(values: Object | None = None, *, file: Path | None = None) -> list[Object]:
    """Return the objects of release `lab` in namespace `imaging`.

    Args:
        values: What differs from the defaults, or from the file.
        file: One of the chart's value sets.
    """
    return json.loads(_render(json.dumps(values or {}), file))


@functools.lru_cache(maxsize=64)
def _render(values: str, file: Path | None) -> str:
    done = _template(values, file)
    assert done.returncode == 0, done.stderr
    return json.dumps([found for found in yaml.safe_load_all(done.stdout) if found])


def refusal(values: Object) -> str:
    """Return what helm says about values that it must refuse."""
    done = _template(json.dumps(values), None)
    assert done.returncode != 0, "these values were accepted"
    return done.stderr


def _template(values: str, file: Path | None) -> subprocess.CompletedProcess[str]:
    files = ["--values", str(file)] if file else []
    command = [find_helm(), "template", "lab", CHART, "--namespace=imaging", *files, "--values=-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=PATIENCE, check=False)


def one(objects: list[Object], kind: str, name: str) -> Object:
    """Return the object of this kind and name; fail if there is none, or more than one."""
    found = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, [(item["kind"], item["metadata"]["name"]) for item in objects]
    return found[0]


def names(objects: list[Object], kind: str) -> list[str]:
    """Return the names of all objects of a kind, sorted."""
    return sorted(item["metadata"]["name"] for item in objects if item["kind"] == kind)


def pod(workload: Object) -> Object:
    """Return the pod's spec of a Deployment, StatefulSet or Job, or of a Pod itself."""
    return workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]


def container(workload: Object) -> Object:
    """Return a workload's only container."""
    (found,) = pod(workload)["containers"]
    return found


def variables(workload: Object) -> dict[str, Any]:
    """Return the container's variables; those that come from elsewhere as their source."""
    listed = container(workload).get("env", [])
    found = {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in listed}
    assert len(found) == len(listed), "a variable is given twice"
    return found
