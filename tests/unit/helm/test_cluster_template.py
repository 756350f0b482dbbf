"""templates/cluster.yaml, read by the orchestrator's own code: what the chart says is what Jobs are made from."""

from support.helm import PLATFORMS, VALUE_SETS, one, render, variables

from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, job
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, read_settings


def settings(tmp_path, values=None, file=None) -> ClusterSettings:
    config = one(render(values, file=file), "ConfigMap", "lab-cellsparse-cluster")
    path = tmp_path / "cluster.yaml"
    path.write_text(config["data"]["cluster.yaml"])
    return read_settings(path)


def made(found: ClusterSettings, backend: str) -> dict:
    trainer = found.trainer(backend)
    assert trainer is not None
    request = JobRequest(run_id="run-1", backend=backend, attempt=1, queue=found.queue(trainer, ""))
    return job(request, trainer, found, None)


def test_every_value_set_is_understood(tmp_path):
    for file in VALUE_SETS + PLATFORMS:
        found = settings(tmp_path, file=file)
        backends = [trainer.backend for trainer in found.trainers]
        assert backends[:3] == ["cellpose", "stardist", "unet"]
        assert found.namespace == "imaging"
        assert found.owner_service == "lab-cellsparse-orchestrator"


def test_where_the_cluster_assigns_users_jobs_name_none(tmp_path):
    given = made(settings(tmp_path), "unet")["spec"]["template"]["spec"]["securityContext"]
    assigned = made(settings(tmp_path, {"assignedUsers": True}), "unet")["spec"]["template"]["spec"]["securityContext"]
    assert (given["runAsUser"], given["fsGroup"]) == (10001, 10001)
    assert assigned == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_a_gpu_of_a_slice_on_a_tainted_node(tmp_path):
    taint = {"key": "nvidia.com/gpu", "operator": "Exists"}
    trainer = {
        "backend": "unet",
        "image": "mine:1",
        "gpu": {"resource": "nvidia.com/mig-1g.10gb", "count": 2},
        "nodeSelector": {"zone": "a"},
        "tolerations": [taint],
        "runtimeClass": "nvidia",
        "priorityClass": "low",
        "sharedMemory": "4Gi",
        "scratch": "7Gi",
        "deadlineSeconds": 3600,
    }
    found = settings(tmp_path, {"trainers": [trainer], "images": {"pullSecrets": ["key"]}})
    body = made(found, "unet")
    spec = body["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "mine:1"
    assert spec["containers"][0]["resources"] == {
        "limits": {"memory": "16Gi", "nvidia.com/mig-1g.10gb": "2"},
        "requests": {"cpu": "2", "memory": "8Gi"},
    }
    assert spec["nodeSelector"] == {"zone": "a"}
    assert taint in spec["tolerations"]
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["priorityClassName"] == "low"
    assert spec["imagePullSecrets"] == [{"name": "key"}]
    assert spec["serviceAccountName"] == "lab-cellsparse-trainer"
    sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in spec["volumes"]}
    assert (sizes["shared-memory"], sizes["scratch"]) == ("4Gi", "7Gi")
    assert body["spec"]["activeDeadlineSeconds"] == 3600


def test_sizes_may_be_as_large_as_the_schema_allows(tmp_path):
    found = settings(tmp_path, {"trainerDefaults": {"sharedMemory": "1Ti", "scratch": "2Ti"}})
    sizes = {trainer.backend: (trainer.shared_memory, trainer.scratch) for trainer in found.trainers}
    assert sizes.pop("cellpose_sam") == ("1Ti", "40Gi")  # it has a scratch of its own
    assert set(sizes.values()) == {("1Ti", "2Ti")}


def test_pods_of_a_training_hold_their_places_for_as_long_as_the_values_say(tmp_path):
    assert settings(tmp_path, {"orchestrator": {"fewerNodesSeconds": 9}}).fewer_nodes_seconds == 9
    assert settings(tmp_path).gang_seconds == 60
    assert settings(tmp_path, {"orchestrator": {"gangSeconds": 300}}).gang_seconds == 300


def test_on_the_cpu_nothing_speaks_of_gpus(tmp_path):
    found = settings(tmp_path, {"trainerDefaults": {"gpu": {"count": 0}, "runtimeClass": "nvidia"}})
    spec = made(found, "cellpose")["spec"]["template"]["spec"]
    assert set(spec["containers"][0]["resources"]["limits"]) == {"memory"}
    assert "runtimeClassName" not in spec


def test_jobs_are_given_the_store_as_the_servers_are(tmp_path):
    values = {
        "minio": {"enabled": False},
        "s3": {"endpoint": "s3.example:443", "bucket": "lab/p", "existingSecret": "keys", "caSecret": "ca"},
    }
    found = settings(tmp_path, values)
    assert found.environment == {
        "CELLSPARSE_STORE_URL": "s3://lab/p",
        "CELLSPARSE_S3_ENDPOINT": "s3.example:443",
        "CELLSPARSE_S3_REGION": "us-east-1",
        "CELLSPARSE_S3_SECURE": "true",
        "CELLSPARSE_S3_PATH_STYLE": "true",
    }
    assert (found.credentials_secret, found.ca_secret) == ("keys", "ca")


def test_where_there_is_sts_training_pods_get_no_keys(tmp_path):
    external = {"minio": {"enabled": False}, "s3": {"endpoint": "s3.example", "existingSecret": "keys"}}
    sts = {"s3": external["s3"] | {"sts": {"endpoint": "https://sts.example:8443", "roleArn": "arn:aws:iam::1:role/r"}}}
    for values, secret in ((None, ""), (external, "keys"), (external | sts, "")):
        found = settings(tmp_path, values)
        assert found.credentials_secret == secret
        volumes = made(found, "unet")["spec"]["template"]["spec"]["volumes"]
        assert ("credentials" in [volume["name"] for volume in volumes]) == bool(secret)
    objects = render(external | sts)
    told = variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))
    assert told["CELLSPARSE_STS_ENDPOINT"] == "https://sts.example:8443"
    assert told["CELLSPARSE_STS_ROLE_ARN"] == "arn:aws:iam::1:role/r"
    egress = one(objects, "NetworkPolicy", "lab-cellsparse-orchestrator")["spec"]["egress"]
    assert {"ports": [{"port": 8443}]} in egress


def test_minio_of_the_release_is_its_own_sts():
    for tls, url in (("none", "http"), ("generated", "https")):
        found = variables(one(render({"tls": {"kind": tls}}), "Deployment", "lab-cellsparse-orchestrator"))
        assert found["CELLSPARSE_STS_ENDPOINT"] == f"{url}://lab-cellsparse-minio.imaging.svc:9000"


def test_kueue_admits_jobs(tmp_path):
    body = made(settings(tmp_path, {"kueue": {"queue": "training"}}), "unet")
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert body["spec"]["suspend"] is True


def test_projects_have_queues_of_their_own(tmp_path):
    found = settings(tmp_path, {"kueue": {"projects": {"pr-0": {"queue": "lab"}}}})
    trainer = found.trainer("unet")
    assert trainer is not None
    assert (found.queue(trainer, "pr-0"), found.queue(trainer, "pr-1"), found.has_queues) == ("lab", "", True)
    assert not settings(tmp_path).has_queues


def test_training_pods_carry_the_labels_that_the_network_policies_select(tmp_path):
    labels = made(settings(tmp_path), "unet")["spec"]["template"]["metadata"]["labels"]
    objects = render()
    for policy, wanted in (("deny", "podSelector"), ("trainers", "podSelector"), ("store", "podSelector")):
        selector = one(objects, "NetworkPolicy", f"lab-cellsparse-{policy}")["spec"][wanted]
        assert selector["matchLabels"].items() <= labels.items(), policy
        for expression in selector.get("matchExpressions", []):
            assert labels[expression["key"]] in expression["values"], policy


def test_training_pods_show_the_servers_certificate_and_have_metrics(tmp_path):
    found = settings(tmp_path, {"tls": {"kind": "secret", "secret": "ours"}})
    assert (found.tls_secret, found.tls_callers, found.metrics_port) == ("ours", (), 9090)
    assert settings(tmp_path).tls_secret == "lab-cellsparse-tls-trainer"
    assert settings(tmp_path, {"tls": {"kind": "none"}}).tls_secret == ""


def test_training_pods_answer_the_orchestrator_alone(tmp_path):
    found = settings(tmp_path, {"tls": {"kind": "generated"}})
    assert found.tls_secret == "lab-cellsparse-tls-trainer"
    assert found.tls_callers == ("lab-cellsparse-orchestrator.imaging.svc",)
