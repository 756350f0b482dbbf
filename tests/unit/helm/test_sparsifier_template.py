"""templates/sparsifier.yaml."""

from support.helm import container, names, one, pod, render, variables

NAME = "lab-cellsparse-sparsifier"


def test_replicas_image_and_placement_are_values():
    own = {"image": "mine", "replicas": 3, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}
    deployment = one(render({"sparsifier": own}), "Deployment", NAME)
    assert deployment["spec"]["replicas"] == 3
    assert container(deployment)["image"] == "mine"
    assert pod(deployment)["nodeSelector"] == {"a": "b"}
    assert pod(deployment)["tolerations"] == [{"operator": "Exists"}]
    assert variables(deployment)["CELLSPARSE_PORT"] == "50051"
    assert variables(deployment)["CELLSPARSE_HOST"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert container(one(render(), "Deployment", NAME))["image"] == "ghcr.io/cellsparse/cellsparse-sparsifier:0.1.0"


def test_it_never_sees_the_database():
    volumes = pod(one(render({"database": {"kind": "postgresql"}}), "Deployment", NAME))["volumes"]
    credentials = next(volume for volume in volumes if volume["name"] == "credentials")
    assert [source["secret"]["name"] for source in credentials["projected"]["sources"]] == ["lab-cellsparse-store"]


def test_no_autoscaler_by_default():
    assert names(render(), "HorizontalPodAutoscaler") == []


def test_an_autoscaler_sets_the_replicas():
    own = {"replicas": 2, "autoscaling": {"enabled": True, "maxReplicas": 5, "targetCPU": 55}}
    objects = render({"sparsifier": own})
    assert "replicas" not in one(objects, "Deployment", NAME)["spec"]
    assert one(objects, "HorizontalPodAutoscaler", NAME)["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 55}},
            }
        ],
    }


def test_the_most_is_never_below_the_least():
    own = {"replicas": 9, "autoscaling": {"enabled": True, "maxReplicas": 5}}
    assert one(render({"sparsifier": own}), "HorizontalPodAutoscaler", NAME)["spec"]["maxReplicas"] == 9


def test_the_service():
    service = one(render(), "Service", NAME)
    assert [port["port"] for port in service["spec"]["ports"]] == [50051, 9090]
    labels = one(render(), "Deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
