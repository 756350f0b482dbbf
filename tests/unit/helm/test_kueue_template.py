"""templates/kueue.yaml."""

from support.helm import names, one, render


def test_a_queue_that_exists_is_not_made():
    assert names(render({"kueue": {"queue": "training"}}), "LocalQueue") == []


def test_queues_of_projects():
    projects = {
        "pr-a": {"queue": "lab-a", "clusterQueue": "gpus-a"},
        "pr-b": {"queue": "lab-b"},
        "pr-c": {"queue": "lab-a", "clusterQueue": "gpus-a"},
    }
    objects = render({"kueue": {"queue": "rest", "clusterQueue": "gpus", "projects": projects}})
    assert sorted(names(objects, "LocalQueue")) == ["lab-a", "rest"]
    assert one(objects, "LocalQueue", "lab-a")["spec"] == {"clusterQueue": "gpus-a"}


def test_a_queue_of_a_cluster_queue():
    found = one(render({"kueue": {"queue": "training", "clusterQueue": "gpus"}}), "LocalQueue", "training")
    assert found["spec"] == {"clusterQueue": "gpus"}
