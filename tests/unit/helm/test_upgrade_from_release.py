"""Values and objects of the last release's chart: today's takes the values, and changes nothing that cannot change."""

import json

import pytest
import yaml
from support.helm import CHART, VALUE_SETS, helm
from support.release import unpack_release

CHANGEABLE = {"StatefulSet": {"template", "replicas", "persistentVolumeClaimRetentionPolicy"}}
"""Fields of a spec that Kubernetes lets an upgrade change, of kinds where it lets it change few."""


@pytest.fixture(scope="module")
def release():
    return unpack_release()


def rendered(chart, values):
    done = helm("template", "lab", str(chart), f"--values={values}", "--set=s3.existingSecret=lab-s3")
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def fixed(kind, spec):
    """What an upgrade cannot change of an object."""
    if kind in ("Deployment", "DaemonSet"):
        return {"selector": spec["selector"]}
    if kind == "StatefulSet":
        return {name: value for name, value in spec.items() if name not in CHANGEABLE[kind]}
    if kind == "PersistentVolumeClaim":
        return spec
    if kind == "Service":
        return {"clusterIP": spec.get("clusterIP")}
    return {}


@pytest.mark.parametrize("name", [path.name for path in VALUE_SETS])
def test_the_chart_takes_the_releases_values_and_what_cannot_change_stays(release, name):
    chart = release.folder / "helm" / "cellsparse"
    values = chart / "ci" / name
    if not values.exists():
        pytest.skip(f"the release has no value set {name}")
    before, after = rendered(chart, values), rendered(CHART, values)
    assert [key for key in before if key[0] in ("StatefulSet", "PersistentVolumeClaim") and key not in after] == []
    for (kind, own), old in before.items():
        new = after.get((kind, own))
        if new is not None and "spec" in old:
            told = json.dumps(fixed(kind, new["spec"]), sort_keys=True)
            assert told == json.dumps(fixed(kind, old["spec"]), sort_keys=True), f"{kind} {own}"
