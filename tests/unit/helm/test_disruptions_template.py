"""templates/disruptions.yaml."""

from support.helm import names, one, render


def test_each_component_with_replicas_has_a_budget_that_selects_its_pods():
    objects = render({"trainers": [{"backend": "unet"}, {"backend": "cellpose", "warmReplicas": 0}]})
    assert names(objects, "PodDisruptionBudget") == [
        "lab-cellsparse-gateway",
        "lab-cellsparse-sparsifier",
        "lab-cellsparse-warm-unet",
    ]
    budget = one(objects, "PodDisruptionBudget", "lab-cellsparse-warm-unet")["spec"]
    labels = one(objects, "Deployment", "lab-cellsparse-unet")["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert budget["maxUnavailable"] == 1


def test_they_can_be_off():
    assert names(render({"podDisruptionBudgets": {"enabled": False}}), "PodDisruptionBudget") == []
