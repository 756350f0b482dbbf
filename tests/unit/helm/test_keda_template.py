"""templates/keda.yaml."""

from support.helm import names, one, render


def test_off_by_default():
    assert names(render(), "ScaledObject") == []
    assert one(render(), "Deployment", "lab-cellsparse-unet")["spec"]["replicas"] == 1


def test_warm_replicas_follow_running_calls():
    values = {
        "keda": {"enabled": True, "maxReplicas": 6, "callsPerReplica": 3, "prometheus": "http://p:9090"},
        "trainers": [{"backend": "unet", "warmReplicas": 2}, {"backend": "cellpose", "warmReplicas": 0}],
    }
    objects = render(values)
    assert names(objects, "ScaledObject") == ["lab-cellsparse-unet"]
    spec = one(objects, "ScaledObject", "lab-cellsparse-unet")["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 6)
    assert spec["scaleTargetRef"] == {"name": "lab-cellsparse-unet"}
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["serverAddress"] == "http://p:9090"
    assert trigger["metadata"]["threshold"] == "3"
    assert "replicas" not in one(objects, "Deployment", "lab-cellsparse-unet")["spec"]


def test_the_most_is_never_below_the_least():
    values = {"keda": {"enabled": True, "maxReplicas": 1}, "trainerDefaults": {"warmReplicas": 3}}
    assert one(render(values), "ScaledObject", "lab-cellsparse-unet")["spec"]["maxReplicaCount"] == 3
