"""The chart on a real API server, in a namespace that enforces the pod security level "restricted".

kwok plays the nodes: the scheduler, the controllers and the admission of pods are real, the programs in them are not.
"""

import json
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from support.cluster_objects import namespaced_kinds, objects_of, refused_objects
from support.control_plane import BIN
from support.custom_resources import apply_definitions, chart_definitions, delete_definitions
from support.fake_nodes import fake_nodes
from support.helm import CHART, PLATFORMS, VALUE_SETS, helm
from support.kueue import kueue_definitions
from support.limits import LONG_PATIENCE, PATIENCE
from support.release import unpack_release

from cellsparse_orchestrator.launchers.kubernetes.launcher import KubernetesLauncher
from cellsparse_orchestrator.launchers.kubernetes.settings import read_settings
from cellsparse_orchestrator.launchers.static import static_launcher

GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
SLICES = {"nvidia.com/mig-1g.10gb": "14", "nvidia.com/mig-2g.20gb": "7"}
NODES = {
    "chart-plain": {},
    "chart-gpu": {
        "resources": {"nvidia.com/gpu": "8"},
        "labels": {"nvidia.com/gpu.present": "true"},
        "taints": [GPU_TAINT],
    },
    "chart-mig": {"resources": {"nvidia.com/gpu": "8", **SLICES}},
}
GIVEN = {
    "lab-s3": {"accessKey": "key", "secretKey": "secret"},
    "lab-ca": {"ca.crt": "certificate"},
    "lab-database": {"url": "postgresql+psycopg://user:password@host/database"},
}
"""Secrets that value sets expect."""
NAME = "lab-cellsparse"


def until(found: Callable[[], object], seconds: float = LONG_PATIENCE) -> None:
    """Wait until an answer is empty; fail with the last one when the time is over.

    The scheduler looks again at a pod that fitted nowhere after five minutes, if it missed what has changed since.
    """
    end = time.monotonic() + seconds
    while problem := found():
        assert time.monotonic() < end, f"still there: {problem}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(control_plane, admin, tmp_path_factory) -> Iterator[str]:
    """Nodes, volumes, classes and custom resources; gives the path of an administrator's kubeconfig."""
    if not (BIN / "kwok").exists():
        pytest.skip("kwok is not built; `make tools` builds it where Go is installed")
    storage = client.StorageV1Api(admin)
    definitions = [*chart_definitions(), *kueue_definitions()]
    apply_definitions(admin, definitions)
    for name, default in (("standard", "true"), ("fast", "false")):
        marked = {"storageclass.kubernetes.io/is-default-class": default}
        body = {"metadata": {"name": name, "annotations": marked}, "provisioner": "kubernetes.io/no-provisioner"}
        storage.create_storage_class(body)
    client.NodeV1Api(admin).create_runtime_class({"metadata": {"name": "nvidia"}, "handler": "nvidia"})
    priority = {"metadata": {"name": "cellsparse-training"}, "value": 1000}
    client.SchedulingV1Api(admin).create_priority_class(priority)
    with fake_nodes(control_plane, tmp_path_factory.mktemp("nodes"), NODES):
        yield str(control_plane.kubeconfig("admin"))
    delete_definitions(admin, definitions)
    for name in ("standard", "fast"):
        storage.delete_storage_class(name)
    client.NodeV1Api(admin).delete_runtime_class("nvidia")
    client.SchedulingV1Api(admin).delete_priority_class("cellsparse-training")


@pytest.fixture
def restricted(admin, namespace) -> str:
    """A namespace whose pods must be of the level "restricted", with the Secrets that value sets expect."""
    core = client.CoreV1Api(admin)
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(namespace, {"metadata": {"labels": label}})
    for name, data in GIVEN.items():
        core.create_namespaced_secret(namespace, {"metadata": {"name": name}, "stringData": data})
    return namespace


@pytest.fixture
def volumes(admin, namespace) -> Iterator[None]:
    """Two volumes of each class, in place of a provisioner."""
    core = client.CoreV1Api(admin)
    names = [f"{namespace}-{kind}-{number}" for kind in ("standard", "fast") for number in range(2)]
    for name in names:
        spec = {
            "capacity": {"storage": "200Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": name.split("-")[-2],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nonexistent"},
        }
        core.create_persistent_volume({"metadata": {"name": name}, "spec": spec})
    yield
    for name in names:
        core.delete_persistent_volume(name)


def run(kubeconfig: str, namespace: str, verb: str, *arguments: str) -> str:
    words = ["get", *arguments, "lab"] if verb == "get" else [verb, "lab", *arguments]
    done = helm(*words, f"--namespace={namespace}", f"--kubeconfig={kubeconfig}", seconds=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unready(api: client.ApiClient, namespace: str) -> list[str]:
    """Names of Deployments, StatefulSets and volume claims that are not what they should be yet."""
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    waiting = []
    for found in [
        *apps.list_namespaced_deployment(namespace).items,
        *apps.list_namespaced_stateful_set(namespace).items,
    ]:
        status = found.status
        current = (status.observed_generation or 0) >= found.metadata.generation
        if not current or (status.available_replicas or 0) < found.spec.replicas:
            waiting.append(f"{found.metadata.name} has {status.available_replicas or 0} of {found.spec.replicas} pods")
    claims = core.list_namespaced_persistent_volume_claim(namespace).items
    return waiting + [claim.metadata.name for claim in claims if claim.status.phase != "Bound"]


@pytest.mark.parametrize("file", PLATFORMS, ids=lambda file: file.stem)
def test_the_api_server_takes_the_values_of_every_kind_of_cluster(cluster, admin, restricted, file):
    """Every object with every field; their nodes, volumes and databases are not here, so nothing of it is made."""
    dry = ("--dry-run=server", "--output=json")
    release = json.loads(run(cluster, restricted, "install", str(CHART), f"--values={file}", *dry))
    written = [release["manifest"], *(hook["manifest"] for hook in release["hooks"])]
    objects = [one for text in written for one in yaml.safe_load_all(text) if one]
    assert {one["kind"] for one in objects} >= {"ConfigMap", "Deployment", "NetworkPolicy", "Role", "Service"}
    assert not refused_objects(admin, restricted, objects)


def test_a_field_that_a_kind_does_not_have_is_refused(cluster, admin, restricted):
    """So that the test before would find one."""
    odd = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd"}, "dada": {}}
    (refused,) = refused_objects(admin, restricted, [odd])
    assert "dada" in refused


@pytest.mark.parametrize("file", VALUE_SETS, ids=lambda file: file.stem)
def test_it_installs_becomes_available_and_leaves_nothing(cluster, admin, restricted, volumes, file):
    kinds = namespaced_kinds(admin)
    before = objects_of(admin, restricted, kinds)
    notes = run(cluster, restricted, "install", str(CHART), f"--values={file}")
    assert f'is installed as "lab" in namespace "{restricted}"' in notes
    until(lambda: unready(admin, restricted))
    installed = objects_of(admin, restricted, kinds) - before
    assert {f"deployments/{NAME}-orchestrator", f"deployments/{NAME}-sparsifier"} <= installed
    assert not any("migrate" in name for name in installed), "the migration's Job stays"

    hooks = [hook for hook in yaml.safe_load_all(run(cluster, restricted, "get", "hooks")) if hook]
    for hook in hooks:
        if hook["kind"] == "Pod":  # here it would wait for a server that does not run
            client.CoreV1Api(admin).create_namespaced_pod(restricted, hook, dry_run="All")
    assert [hook["kind"] for hook in hooks].count("Pod") == 1

    run(cluster, restricted, "uninstall")
    until(lambda: objects_of(admin, restricted, kinds) - before)


def test_a_pod_that_is_not_restricted_is_refused_there(cluster, admin, restricted):
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    with pytest.raises(ApiException) as caught:
        client.CoreV1Api(admin).create_namespaced_pod(restricted, pod)
    assert "violates PodSecurity" in caught.value.body


def test_upgrades_keep_passwords_and_kept_data_outlives_the_release(cluster, admin, restricted, volumes):
    core = client.CoreV1Api(admin)

    def passwords() -> dict[str, dict[str, str]]:
        secrets = ("store", "database", "admin")
        return {name: core.read_namespaced_secret(f"{NAME}-{name}", restricted).data for name in secrets}

    values = ["--set=database.kind=postgresql,data.keep=true"]
    run(cluster, restricted, "install", str(CHART), *values)
    first = passwords()
    run(cluster, restricted, "upgrade", str(CHART), *values, "--set=orchestrator.slots=2")
    assert passwords() == first
    until(lambda: unready(admin, restricted))

    run(cluster, restricted, "uninstall")
    until(lambda: core.list_namespaced_pod(restricted).items)
    claims = [claim.metadata.name for claim in core.list_namespaced_persistent_volume_claim(restricted).items]
    assert sorted(claims) == [f"data-{NAME}-minio-0", f"data-{NAME}-postgresql-0"]
    run(cluster, restricted, "install", str(CHART), *values)
    assert passwords() == first
    run(cluster, restricted, "uninstall")


def test_from_the_last_release_and_back(cluster, admin, restricted, volumes):
    """What cannot change of an object would end the upgrade; the Job that goes back runs when no orchestrator does."""
    release = unpack_release()
    core, apps = client.CoreV1Api(admin), client.AppsV1Api(admin)

    def kept() -> dict[str, object]:
        secrets = {
            name: core.read_namespaced_secret(f"{NAME}-{name}", restricted).data for name in ("store", "database")
        }
        claims = core.list_namespaced_persistent_volume_claim(restricted).items
        return {**secrets, "claims": sorted((claim.metadata.name, claim.spec.volume_name) for claim in claims)}

    values = "--set=database.kind=postgresql"
    run(cluster, restricted, "install", str(release.folder / "helm" / "cellsparse"), values)
    until(lambda: unready(admin, restricted))
    first = kept()
    notes = run(cluster, restricted, "upgrade", str(CHART), values)
    assert "CELLSPARSE_TOKEN" in notes
    until(lambda: unready(admin, restricted))
    assert kept() == first

    back = f"--set=rollback.to={release.name},rollback.lose=true"
    run(cluster, restricted, "upgrade", str(CHART), values, back)
    until(lambda: unready(admin, restricted))
    assert apps.read_namespaced_deployment(f"{NAME}-orchestrator", restricted).spec.replicas == 0
    job = client.BatchV1Api(admin).read_namespaced_job(f"{NAME}-rollback", restricted)
    assert job.status.succeeded == 1
    run(cluster, restricted, "rollback", "1")
    until(lambda: unready(admin, restricted))
    assert kept() == first
    assert apps.read_namespaced_deployment(f"{NAME}-orchestrator", restricted).spec.replicas == 1
    run(cluster, restricted, "uninstall")


def test_the_orchestrators_account_may_do_what_the_launcher_does_and_no_more(
    cluster, control_plane, admin, restricted, volumes, tmp_path
):
    kinds = namespaced_kinds(admin)
    before = objects_of(admin, restricted, kinds)
    run(cluster, restricted, "install", str(CHART), f"--values={CHART / 'ci' / 'gpu.yaml'}")
    config = client.CoreV1Api(admin).read_namespaced_config_map(f"{NAME}-cluster", restricted)
    path = tmp_path / "cluster.yaml"
    path.write_text(config.data["cluster.yaml"])

    with control_plane.service_account_client(restricted, f"{NAME}-orchestrator") as api:
        for forbidden in _beyond(api, restricted):
            with pytest.raises(ApiException) as caught:
                forbidden()
            assert caught.value.status == 403
        client.CoreV1Api(api).list_namespaced_event(restricted)

        launcher = KubernetesLauncher(read_settings(path), api, static_launcher({}, ""))
        launcher.start()
        try:
            placed = launcher.ensure("unet", "run-first", 1)
            assert not placed.missing, placed.message
            job = client.BatchV1Api(admin).read_namespaced_job("run-first-a1", restricted)
            assert [(owner.kind, owner.name) for owner in job.metadata.owner_references] == [
                ("Service", f"{NAME}-orchestrator")
            ]
            until(lambda: _without_pod(admin, restricted, "run-first-a1"))
            launcher.release("run-first", 1)
            until(lambda: [name for name in objects_of(admin, restricted, kinds) if "run-first" in name])
            launcher.ensure("unet", "run-second", 1)
        finally:
            launcher.stop()

    assert "jobs/run-second-a1" in objects_of(admin, restricted, kinds)
    run(cluster, restricted, "uninstall")
    until(lambda: objects_of(admin, restricted, kinds) - before)


def _beyond(api: client.ApiClient, namespace: str) -> list[Callable[[], object]]:
    """Calls that the orchestrator's account must not be allowed."""
    core, jobs, apps = client.CoreV1Api(api), client.BatchV1Api(api), client.AppsV1Api(api)
    return [
        lambda: core.list_namespaced_secret(namespace),
        lambda: core.read_namespaced_secret("lab-s3", namespace),
        lambda: core.list_namespaced_config_map(namespace),
        lambda: core.create_namespaced_pod(namespace, {"metadata": {"name": "x"}}),
        lambda: core.delete_namespaced_pod("x", namespace),
        lambda: core.connect_post_namespaced_pod_exec("x", namespace, command=["sh"]),
        lambda: apps.delete_namespaced_deployment(f"{NAME}-orchestrator", namespace),
        lambda: jobs.list_namespaced_job("kube-system"),
        lambda: core.list_namespaced_pod("default"),
        lambda: core.list_pod_for_all_namespaces(),
        lambda: jobs.list_job_for_all_namespaces(),
        lambda: core.list_namespace(),
        lambda: core.list_node(),
    ]


def _without_pod(api: client.ApiClient, namespace: str, job: str) -> str:
    selector = f"batch.kubernetes.io/job-name={job}"
    pods = client.CoreV1Api(api).list_namespaced_pod(namespace, label_selector=selector).items
    return "" if pods and pods[0].spec.node_name else f"{job} has no pod on a node"
