"""templates/autoscaling.yaml."""

import pytest
import yaml
from support.helm import CHART, names, one, refusal, render, variables

from cellsparse_common.rpc import metrics


def scaled(values, kind="ScaledObject"):
    return one(render(values), kind, "lab-cellsparse-unet")["spec"]


def test_off_by_default():
    assert names(render(), "ScaledObject") == names(render(), "HorizontalPodAutoscaler") == []
    assert one(render(), "Deployment", "lab-cellsparse-unet")["spec"]["replicas"] == 1
    assert "CELLSPARSE_SCALE_TO_ZERO" not in variables(one(render(), "Deployment", "lab-cellsparse-orchestrator"))


@pytest.mark.parametrize("kind", ["keda", "hpa"])
def test_replicas_follow_calls_that_wait_and_calls_that_run(kind):
    values = {
        "autoscaling": {"kind": kind, "maxReplicas": 6, "callsPerReplica": 3, "prometheus": "http://p:9090"},
        "trainers": [{"backend": "unet", "minReplicas": 2}, {"backend": "cellpose", "warmReplicas": 0}],
    }
    objects = render(values)
    assert "replicas" not in one(objects, "Deployment", "lab-cellsparse-unet")["spec"]
    made = {each["kind"]: each for each in objects if each["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")}
    assert list(made) == [{"keda": "ScaledObject", "hpa": "HorizontalPodAutoscaler"}[kind]]
    spec = next(iter(made.values()))["spec"]
    if kind == "keda":
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 6)
        triggers = [trigger["metadata"] for trigger in spec["triggers"]]
        assert {trigger["serverAddress"] for trigger in triggers} == {"http://p:9090"}
        assert [trigger["threshold"] for trigger in triggers] == ["4", "4", "3"]
        text = " ".join(trigger["query"] for trigger in triggers)
    else:
        assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
        found = [each["external"] for each in spec["metrics"]]
        assert [each["target"]["averageValue"] for each in found] == ["4", "4", "3"]
        text = (CHART / "files" / "prometheus-adapter.yaml").read_text()
        rules = yaml.safe_load(text)["rules"]["external"]
        given = {rule.get("name", {}).get("as") for rule in rules}
        assert all(
            each["metric"]["name"] in given or each["metric"]["name"] in rules[0]["seriesQuery"] for each in found
        )
    for name in ("cellsparse_predictions_waiting", "cellsparse_inference_queue_length", "cellsparse_calls_running"):
        assert name in text
        assert f"| {name} |" in str(metrics.__doc__)


def test_trainers_may_sleep_and_the_orchestrator_knows_which():
    values = {
        "autoscaling": {"kind": "keda"},
        "trainers": [{"backend": "unet", "minReplicas": 0}, {"backend": "stardist"}],
    }
    assert (scaled(values)["minReplicaCount"], scaled(values)["cooldownPeriod"]) == (0, 900)
    objects = render(values)
    assert variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))["CELLSPARSE_SCALE_TO_ZERO"] == "unet"
    cluster = yaml.safe_load(one(objects, "ConfigMap", "lab-cellsparse-cluster")["data"]["cluster.yaml"])
    assert [each.get("warm_deployment") for each in cluster["trainers"]] == ["lab-cellsparse-unet", None]
    role = one(objects, "Role", "lab-cellsparse-orchestrator")
    assert {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]} in role["rules"]


def test_only_keda_starts_a_trainer_from_none():
    said = refusal({"autoscaling": {"kind": "hpa"}, "trainerDefaults": {"minReplicas": 0}})
    assert "only autoscaling.kind keda starts trainers from none" in said


def test_the_most_is_never_below_the_least():
    values = {"autoscaling": {"kind": "keda", "maxReplicas": 1}, "trainerDefaults": {"minReplicas": 3}}
    assert scaled(values)["maxReplicaCount"] == 3


def test_values_of_release_0_1_0_are_read():
    values = {"keda": {"enabled": True, "maxReplicas": 7}, "trainers": [{"backend": "unet", "warmReplicas": 2}]}
    (scaled_object,) = [each for each in render(values) if each["kind"] == "ScaledObject"]
    spec = scaled_object["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 7)
    assert names(render({"keda": {"enabled": False}}), "ScaledObject") == []
