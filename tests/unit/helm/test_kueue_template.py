"""templates/kueue.yaml."""

from support.helm import names, one, render


def test_a_queue_that_exists_is_not_made():
    assert names(render({"kueue": {"queue": "training"}}), "LocalQueue") == []


def test_a_queue_of_a_cluster_queue():
    found = one(render({"kueue": {"queue": "training", "clusterQueue": "gpus"}}), "LocalQueue", "training")
    assert found["spec"] == {"clusterQueue": "gpus"}
