"""Jobs and Services of attempts, compared whole."""

import json
from dataclasses import replace

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_orchestrator.launchers.base import Size
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, OwnerService, job, rank_policy, service
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, Gpu, TrainerTemplate, read_settings

REQUEST = JobRequest(run_id="run-0a1b2c", backend="unet", attempt=2)
LABELS = {
    "app.kubernetes.io/name": "trainer-unet",
    "app.kubernetes.io/component": "trainer",
    "app.kubernetes.io/part-of": "cellsparse",
    "app.kubernetes.io/instance": "lab",
    "app.kubernetes.io/managed-by": "cellsparse-orchestrator",
    "cellsparse.dev/run": "run-0a1b2c",
    "cellsparse.dev/attempt": "2",
}
LOST_NODE = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    for key in ("not-ready", "unreachable")
]
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
SPREAD = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}


def cluster(trainer, **fields):
    return ClusterSettings(namespace="imaging", instance="lab", trainers=(trainer,), **fields)


def trainer(**fields):
    return TrainerTemplate(backend="unet", image="example.org/cellsparse-trainer-unet:1.0", port=50054, **fields)


def variables(container):
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def test_the_plainest_job():
    template = trainer(gpu=Gpu(count=0))
    assert job(REQUEST, template, cluster(template), None) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "run-0a1b2c-a2", "namespace": "imaging", "labels": LABELS},
        "spec": {
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": 604800,
            "ttlSecondsAfterFinished": 600,
            "template": {
                "metadata": {"labels": LABELS, "annotations": {}},
                "spec": {
                    "restartPolicy": "Never",
                    "subdomain": "run-0a1b2c-a2",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 60,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "runAsGroup": 10001,
                        "fsGroup": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "trainer",
                            "image": "example.org/cellsparse-trainer-unet:1.0",
                            "imagePullPolicy": "IfNotPresent",
                            "env": [
                                {"name": "CELLSPARSE_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                                {"name": "CELLSPARSE_EXIT_UNUSED_SECONDS", "value": "600"},
                                {"name": "CELLSPARSE_INSECURE", "value": "1"},
                                {"name": "CELLSPARSE_PORT", "value": "50054"},
                            ],
                            "ports": [{"name": "grpc", "containerPort": 50054, "protocol": "TCP"}],
                            "startupProbe": {
                                "grpc": {"port": 50054},
                                "periodSeconds": 1,
                                "timeoutSeconds": 5,
                                "failureThreshold": 120,
                            },
                            "readinessProbe": {"grpc": {"port": 50054}, "periodSeconds": 5, "timeoutSeconds": 5},
                            "resources": {},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [
                                {"name": "scratch", "mountPath": "/tmp"},
                                {"name": "shared-memory", "mountPath": "/dev/shm"},
                            ],
                        }
                    ],
                    "tolerations": LOST_NODE,
                    "volumes": [
                        {"name": "scratch", "emptyDir": {"sizeLimit": "20Gi"}},
                        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                    ],
                },
            },
        },
    }


def test_a_job_with_everything():
    template = trainer(
        image_pull_policy="Always",
        image_pull_secrets=("registry",),
        command=("tini", "--", "trainer"),
        resources={"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "32Gi"}},
        gpu=Gpu(resource="nvidia.com/mig-1g.10gb", count=2),
        node_selector={"gpu": "a100"},
        tolerations=(GPU_TAINT,),
        affinity=SPREAD,
        runtime_class="nvidia",
        priority_class="batch",
        shared_memory="8Gi",
        scratch="100Gi",
        deadline_seconds=3600,
        ttl_seconds=0,
        grace_seconds=90,
        node_lost_seconds=5,
        labels={"team": "light", "cellsparse.dev/run": "not this one"},
        annotations={"note": "yes"},
        environment={"CELLSPARSE_CACHE_MIB": "4096", "CELLSPARSE_PORT": "1"},
    )
    settings = cluster(
        template,
        owner_service="lab",
        service_account="lab-trainer",
        environment={"CELLSPARSE_STORE_URL": "s3://cells", "CELLSPARSE_CACHE_MIB": "1"},
        credentials_secret="store",
        ca_secret="authority",
    )
    made = job(replace(REQUEST, queue="imaging"), template, settings, OwnerService(name="lab", uid="1-2-3"))
    assert made["metadata"] == {
        "name": "run-0a1b2c-a2",
        "namespace": "imaging",
        "labels": {**LABELS, "kueue.x-k8s.io/queue-name": "imaging"},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Service", "name": "lab", "uid": "1-2-3", "controller": False}
        ],
    }
    spec = made["spec"]
    assert (spec["suspend"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (True, 3600, 0)
    assert spec["template"]["metadata"] == {"labels": {"team": "light", **LABELS}, "annotations": {"note": "yes"}}
    pod = spec["template"]["spec"]
    assert {key: pod[key] for key in pod if key not in ("securityContext", "containers", "volumes")} == {
        "restartPolicy": "Never",
        "subdomain": "run-0a1b2c-a2",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 90,
        "serviceAccountName": "lab-trainer",
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [GPU_TAINT, *({**bears, "tolerationSeconds": 5} for bears in LOST_NODE)],
        "affinity": SPREAD,
        "runtimeClassName": "nvidia",
        "priorityClassName": "batch",
        "imagePullSecrets": [{"name": "registry"}],
    }
    (container,) = pod["containers"]
    assert container["command"] == ["tini", "--", "trainer"]
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"] == {
        "limits": {"memory": "32Gi", "nvidia.com/mig-1g.10gb": "2"},
        "requests": {"cpu": "4", "memory": "16Gi"},
    }
    assert variables(container) == {
        "CELLSPARSE_HOST": {"fieldRef": {"fieldPath": "status.podIP"}},
        "CELLSPARSE_CACHE_MIB": "4096",  # the trainer's own wins over what all share
        "CELLSPARSE_EXIT_UNUSED_SECONDS": "600",
        "CELLSPARSE_INSECURE": "1",
        "CELLSPARSE_PORT": "50054",
        "CELLSPARSE_S3_CA_BUNDLE": "/run/cellsparse/ca/ca.crt",
        "CELLSPARSE_SECRETS_DIR": "/run/cellsparse/credentials",
        "CELLSPARSE_STORE_URL": "s3://cells",
    }
    assert container["volumeMounts"] == [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "credentials", "mountPath": "/run/cellsparse/credentials", "readOnly": True},
        {"name": "ca", "mountPath": "/run/cellsparse/ca", "readOnly": True},
    ]
    keys = [
        {"key": "accessKey", "path": "cellsparse_s3_access_key"},
        {"key": "secretKey", "path": "cellsparse_s3_secret_key"},
    ]
    assert pod["volumes"] == [
        {"name": "scratch", "emptyDir": {"sizeLimit": "100Gi"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        {
            "name": "credentials",
            "projected": {"defaultMode": 0o440, "sources": [{"secret": {"name": "store", "items": keys}}]},
        },
        {"name": "ca", "secret": {"secretName": "authority", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]


def test_a_given_toleration_of_a_lost_node_stands():
    patient = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    template = trainer(tolerations=(patient,))
    pod = job(REQUEST, template, cluster(template), None)["spec"]["template"]["spec"]
    assert pod["tolerations"] == [patient, LOST_NODE[0]]


def test_the_service_goes_with_the_job():
    template = trainer()
    assert service(REQUEST, template, cluster(template), "4-5-6") == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "run-0a1b2c-a2",
            "namespace": "imaging",
            "labels": LABELS,
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": "run-0a1b2c-a2",
                    "uid": "4-5-6",
                    "controller": False,
                }
            ],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": "run-0a1b2c-a2"},
            "ports": [{"name": "grpc", "port": 50054, "targetPort": "grpc", "protocol": "TCP"}],
        },
    }


def test_pods_of_one_attempt_reach_each_other_and_nobody_else_does():
    template = trainer()
    pods = {"podSelector": {"matchLabels": LABELS}}
    ports = [{"port": 1024, "endPort": 65535, "protocol": "TCP"}]
    made = rank_policy(REQUEST, cluster(template), "4-5-6")
    assert (made["apiVersion"], made["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert made["metadata"] == service(REQUEST, template, cluster(template), "4-5-6")["metadata"]
    assert made["spec"] == {
        "podSelector": {"matchLabels": LABELS},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": ports, "from": [pods]}],
        "egress": [{"ports": ports, "to": [pods]}],
    }
    assert {"cellsparse.dev/run": "run-0a1b2c", "cellsparse.dev/attempt": "2"}.items() <= LABELS.items()
    labels = job(REQUEST, template, cluster(template), None)["spec"]["template"]["metadata"]["labels"]
    assert LABELS.items() <= labels.items()


def test_settings_come_from_a_file(tmp_path):
    path = tmp_path / "cluster.yaml"
    template = trainer(gpu=Gpu(count=2))
    path.write_text(json.dumps(cluster(template).model_dump(mode="json")))
    assert read_settings(path) == cluster(template)
    assert read_settings(path).trainer("unet") == template
    assert read_settings(path).trainer("stardist") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("namespace: [", "cannot be read"),
        ("namespace: x\ninstance: y\ntrainers: [{backend: unet, image: i, port: 0}]", "trainers.0.port"),
        ("namespace: x\ninstance: y\ntrainers: []\nmystery: 1", "mystery"),
        ("instance: y\ntrainers: []", "namespace"),
        ("namespace: UPPER\ninstance: y\ntrainers: []", "namespace"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, text, words):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        read_settings(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")


def test_with_tls_the_pods_show_the_certificate_and_the_kubelet_looks_for_an_open_port():
    template = trainer()
    pod = job(REQUEST, template, cluster(template, tls_secret="certificate"), None)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    found = variables(container)
    assert found["CELLSPARSE_TLS_CERT"] == "/run/cellsparse/tls/tls.crt"
    assert found["CELLSPARSE_TLS_KEY"] == "/run/cellsparse/tls/tls.key"
    assert {"name": "tls", "mountPath": "/run/cellsparse/tls", "readOnly": True} in container["volumeMounts"]
    items = [{"key": "tls.crt", "path": "tls.crt"}, {"key": "tls.key", "path": "tls.key"}]
    secret = {"secretName": "certificate", "defaultMode": 0o440, "items": items}
    assert {"name": "tls", "secret": secret} in pod["volumes"]
    assert container["startupProbe"] == {
        "tcpSocket": {"port": "grpc"},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 120,
    }
    assert container["readinessProbe"] == {"tcpSocket": {"port": "grpc"}, "periodSeconds": 5, "timeoutSeconds": 5}


def test_with_names_of_callers_the_pods_ask_for_certificates():
    template = trainer()
    settings = cluster(template, tls_secret="certificate", tls_callers=("a.svc", "spiffe://b/c"))
    pod = job(REQUEST, template, settings, None)["spec"]["template"]["spec"]
    found = variables(pod["containers"][0])
    assert found["CELLSPARSE_TLS_CLIENT_CA"] == "/run/cellsparse/tls/ca.crt"
    assert found["CELLSPARSE_TLS_CALLERS"] == "a.svc,spiffe://b/c"
    assert "CELLSPARSE_INSECURE" not in found
    items = next(volume for volume in pod["volumes"] if volume["name"] == "tls")["secret"]["items"]
    assert [item["key"] for item in items] == ["tls.crt", "tls.key", "ca.crt"]


def test_with_tls_the_kubelet_asks_for_health_where_metrics_are():
    template = trainer()
    settings = cluster(template, tls_secret="certificate", metrics_port=9090)
    (container,) = job(REQUEST, template, settings, None)["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/health", "port": "metrics"},
        "periodSeconds": 5,
        "timeoutSeconds": 5,
    }


def test_prometheus_finds_the_pods_by_their_service():
    template = trainer()
    settings = cluster(template, metrics_port=9090)
    (container,) = job(REQUEST, template, settings, None)["spec"]["template"]["spec"]["containers"]
    assert variables(container)["CELLSPARSE_METRICS_PORT"] == "9090"
    assert container["ports"][1] == {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}
    port = {"name": "metrics", "port": 9090, "targetPort": "metrics", "protocol": "TCP"}
    assert port in service(REQUEST, template, settings, "1-2-3")["spec"]["ports"]


def test_a_training_on_several_nodes_has_a_pod_for_each():
    template = trainer(gpu=Gpu(count=1), resources={"limits": {"memory": "16Gi"}})
    request = JobRequest(run_id="run-0a1b2c", backend="unet", attempt=2, size=Size(nodes=3))
    made, plain = (job(one, template, cluster(template), None)["spec"] for one in (request, REQUEST))
    assert (made["completions"], made["parallelism"]) == (3, 3)
    assert {**made, "completions": 1, "parallelism": 1} == plain


def test_each_process_of_a_pod_has_gpus_memory_and_processors_of_its_own():
    asked = {"requests": {"cpu": "500m", "memory": "1.5Gi"}, "limits": {"memory": "16e9", "cpu": 2}}
    template = trainer(gpu=Gpu(count=2), resources=asked, shared_memory="1Gi")
    request = JobRequest(run_id="run-0a1b2c", backend="unet", attempt=2, size=Size(processes=4))
    pod = job(request, template, cluster(template), None)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "2000m", "memory": "6.0Gi"},
        "limits": {"memory": "64e9", "cpu": "8", "nvidia.com/gpu": "8"},
    }
    sizes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"]}
    assert sizes == {"scratch": "20Gi", "shared-memory": "4Gi"}
