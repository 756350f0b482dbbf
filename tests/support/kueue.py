"""Kueue's real controller beside a real control plane, with its custom resources and its webhooks."""

import base64
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from support.control_plane import BIN, ControlPlane, free_port
from support.custom_resources import apply_definitions, delete_definitions
from support.limits import PATIENCE
from support.orchestrator import until

FILES = BIN.parent / "files" / "kueue" / "config" / "components"
GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"
NAMESPACE = "kueue-system"
SERVICE, SECRET = "kueue-webhook-service", "kueue-webhook-server-cert"
GPU = "nvidia.com/gpu"


def kueue_definitions() -> list[dict[str, Any]]:
    """Return the definitions of Kueue's custom resources, from the files of its module."""
    if not FILES.is_dir():
        pytest.skip("Kueue's files are not there; `make tools` copies them where Go is installed")
    found = [yaml.safe_load(path.read_text()) for path in sorted((FILES / "crd" / "bases").glob("*.yaml"))]
    return [{**one, "metadata": {"name": one["metadata"]["name"]}} for one in found]


@contextmanager
def running_kueue(plane: ControlPlane, folder: Path) -> Iterator[None]:
    """Run Kueue's controller against a control plane; take it and its resources away on the way out.

    It makes its own certificate for its webhooks, as in a cluster; the API server reaches them by a Service that names
    this machine.
    """
    if not (BIN / "kueue").exists():
        pytest.skip("kueue is not built; `make tools` builds it where Go is installed")
    port = free_port()
    with plane.client("admin") as api:
        definitions = [_with_conversion(one, port) for one in kueue_definitions()]
        hooks = _webhooks(port)
        apply_definitions(api, definitions)
        _make_service(api, port)
        with _process(plane, folder, port) as process:
            try:
                for hook in hooks:
                    _hooks_api(api, hook, "create", hook)
                _mount_certificate(api, folder, process)
                _wait_ready(api, folder, process)
                yield
            finally:  # while the controller is there to convert its objects and to let go of them
                for hook in hooks:
                    _hooks_api(api, hook, "delete", hook["metadata"]["name"])
                delete_definitions(api, definitions)
                client.CoreV1Api(api).delete_namespace(NAMESPACE)


class Queues:
    """ClusterQueues of one cohort for GPUs, each with a LocalQueue of the same name in a namespace.

    Args:
        api: An administrator's client.
        namespace: Of the LocalQueues.
        gpus: How many GPUs each ClusterQueue owns, by name.
        cohort: Name of the cohort, and of the flavor.
        check: Name of an admission check that every training needs, which is left to the test; empty: none.
    """

    def __init__(
        self, api: client.ApiClient, namespace: str, gpus: dict[str, int], cohort: str = "labs", check: str = ""
    ) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._namespace = namespace
        self._names = list(gpus)
        self._check = check
        self._flavor = self._cohort = f"{cohort}-{namespace}"
        if check:
            self._make_check()
        self._make("resourceflavors", {"kind": "ResourceFlavor", "metadata": {"name": self._flavor}, "spec": {}})
        for name, count in gpus.items():
            self._make("clusterqueues", self._cluster_queue(name, count))
            body = {"kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": name}}
            self._objects.create_namespaced_custom_object(GROUP, VERSION, namespace, "localqueues", _api(body))

    def close(self) -> None:
        """Delete the ClusterQueues and what belongs to them."""
        for name in self._names:
            self._objects.delete_namespaced_custom_object(GROUP, VERSION, self._namespace, "localqueues", name)
            self._objects.delete_cluster_custom_object(GROUP, VERSION, "clusterqueues", name)
        self._objects.delete_cluster_custom_object(GROUP, VERSION, "resourceflavors", self._flavor)
        if self._check:
            self._objects.delete_cluster_custom_object(GROUP, VERSION, "admissionchecks", self._check)

    def workloads(self) -> list[dict[str, Any]]:
        """Return the Workloads of the namespace."""
        found = self._objects.list_namespaced_custom_object(GROUP, VERSION, self._namespace, "workloads")
        return list(found["items"])

    def workload(self, run_id: str) -> dict[str, Any]:
        """Return the only Workload of a run; fail if there is none, or more than one."""
        (found,) = [one for one in self.workloads() if run_id in one["metadata"]["ownerReferences"][0]["name"]]
        return found

    def activate(self, run_id: str, *, active: bool) -> None:
        """Set a run's Workload active or not, as an administrator does."""
        name = self.workload(run_id)["metadata"]["name"]
        body = {"spec": {"active": active}}
        self._objects.patch_namespaced_custom_object(GROUP, VERSION, self._namespace, "workloads", name, body)

    def answer(self, run_id: str, state: str, message: str = "") -> None:
        """Answer the admission check of a run's Workload, as its controller does."""
        name = self.workload(run_id)["metadata"]["name"]
        check = {"name": self._check, "state": state, "message": message, "lastTransitionTime": _now()}
        body = {"status": {"admissionChecks": [check]}}
        self._objects.patch_namespaced_custom_object_status(GROUP, VERSION, self._namespace, "workloads", name, body)

    def hold(self, name: str, *, stopped: bool) -> None:
        """Stop a ClusterQueue and evict what it admitted, or let it go on."""
        policy = {"spec": {"stopPolicy": "HoldAndDrain" if stopped else "None"}}
        self._objects.patch_cluster_custom_object(GROUP, VERSION, "clusterqueues", name, policy)

    def _cluster_queue(self, name: str, gpus: int) -> dict[str, Any]:
        quotas = [{"name": GPU, "nominalQuota": gpus}]
        checks = {"admissionChecksStrategy": {"admissionChecks": [{"name": self._check}]}} if self._check else {}
        spec = {
            **checks,
            "cohortName": self._cohort,
            "namespaceSelector": {},
            "preemption": {"reclaimWithinCohort": "Any"},
            "resourceGroups": [
                {"coveredResources": [GPU], "flavors": [{"name": self._flavor, "resources": quotas}]},
            ],
        }
        return {"kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec}

    def _make_check(self) -> None:
        spec = {"controllerName": "tests.cellsparse.dev/check"}
        self._make("admissionchecks", {"kind": "AdmissionCheck", "metadata": {"name": self._check}, "spec": spec})
        ready = {"type": "Active", "status": "True", "reason": "Active", "message": "", "lastTransitionTime": _now()}
        body = {"status": {"conditions": [ready]}}
        self._objects.patch_cluster_custom_object_status(GROUP, VERSION, "admissionchecks", self._check, body)

    def _make(self, plural: str, body: dict[str, Any]) -> None:
        self._objects.create_cluster_custom_object(GROUP, VERSION, plural, _api(body))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _api(body: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/{VERSION}", **body}


def _configuration(folder: Path, port: int) -> Path:
    """Write the controller's configuration: Jobs alone, fair sharing, nothing limited by rates."""
    path = folder / "kueue.yaml"
    body = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": "0"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(folder / "certificate")},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": True, "webhookServiceName": SERVICE, "webhookSecretName": SECRET},
        "clientConnection": {"qps": 500, "burst": 1000},
        "integrations": {"frameworks": ["batch/job"]},
        "fairSharing": {"preemptionStrategies": ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]},
    }
    path.write_text(yaml.safe_dump(body))
    return path


@contextmanager
def _process(plane: ControlPlane, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        BIN / "kueue",
        f"--config={_configuration(folder, port)}",
        f"--kubeconfig={plane.kubeconfig('admin')}",
        "--feature-gates=VisibilityOnDemand=false",
    ]
    with (folder / "kueue.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "GOMAXPROCS": "2"},
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        yield process
    finally:
        process.kill()  # it is asked for nothing more, and holds nothing that must be written
        process.wait(PATIENCE)


def _make_service(api: client.ApiClient, port: int) -> None:
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    core.create_namespaced_service(NAMESPACE, {"metadata": {"name": SERVICE}, "spec": spec})
    core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": SECRET}})


def _mount_certificate(api: client.ApiClient, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Write the certificate that the controller has made into its folder, as a kubelet would."""
    core = client.CoreV1Api(api)
    made = until(lambda: process.poll() is not None or core.read_namespaced_secret(SECRET, NAMESPACE).data)
    if made is True:
        pytest.fail(f"kueue did not start: {(folder / 'kueue.log').read_text()[-3000:]}")
    target = folder / "certificate"
    part = target.with_suffix(".part")
    part.mkdir()
    for name, content in made.items():
        (part / name).write_bytes(base64.b64decode(content))
    part.rename(target)


def _wait_ready(api: client.ApiClient, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the controller's webhooks answer and it watches: a flavor gets Kueue's finalizer."""
    name, objects = f"ready-{secrets.token_hex(3)}", client.CustomObjectsApi(api)
    body = _api({"kind": "ResourceFlavor", "metadata": {"name": name}, "spec": {}})
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            objects.create_cluster_custom_object(GROUP, VERSION, "resourceflavors", body)
            break
        except client.ApiException:
            time.sleep(0.2)
    else:
        pytest.fail(f"kueue does not answer: {(folder / 'kueue.log').read_text()[-3000:]}")
    objects.delete_cluster_custom_object(GROUP, VERSION, "resourceflavors", name)


def _with_conversion(definition: dict[str, Any], port: int) -> dict[str, Any]:
    """Let the API server ask Kueue to convert between versions, where the module's patches say so."""
    plural = definition["spec"]["names"]["plural"]
    patch = FILES / "crd" / "patches" / f"webhook_in_{plural}.yaml"
    if len(definition["spec"]["versions"]) < 2 or not patch.exists():
        return definition
    conversion = yaml.safe_load(patch.read_text())["spec"]["conversion"]
    conversion["webhook"]["clientConfig"]["service"].update(_service(port))
    return {**definition, "spec": {**definition["spec"], "conversion": conversion}}


def _webhooks(port: int) -> list[dict[str, Any]]:
    """Return the webhook configurations of the module's files, for what the tests have: Jobs and Kueue's own."""
    hooks = [one for one in yaml.safe_load_all((FILES / "webhook" / "manifests.yaml").read_text()) if one]
    for hook in hooks:
        hook["metadata"]["name"] = f"kueue-{hook['metadata']['name']}"
        hook["webhooks"] = [one for one in hook["webhooks"] if _served(one)]
        for one in hook["webhooks"]:
            one["clientConfig"]["service"].update(_service(port))
    return hooks


def _served(hook: dict[str, Any]) -> bool:
    (rule,) = hook["rules"]
    return rule["apiGroups"] == [GROUP] or (rule["apiGroups"], rule["resources"]) == (["batch"], ["jobs"])


def _service(port: int) -> dict[str, Any]:
    return {"name": SERVICE, "namespace": NAMESPACE, "port": port}


def _hooks_api(api: client.ApiClient, hook: dict[str, Any], verb: str, argument: object) -> None:
    kinds = {"MutatingWebhookConfiguration": "mutating", "ValidatingWebhookConfiguration": "validating"}
    kind = f"{kinds[hook['kind']]}_webhook_configuration"
    getattr(client.AdmissionregistrationV1Api(api), f"{verb}_{kind}")(argument)
