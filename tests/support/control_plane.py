"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, controller manager and scheduler, with RBAC on."""

import os
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
import yaml
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config
from support.limits import PATIENCE

BIN = Path(__file__).parents[2] / ".tools" / "bin"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
AUDIT = "audit.log"
"""File in the control plane's folder: a line of JSON for every request of a ServiceAccount but the cluster's own."""
PORTS = range(20_000, 30_000)
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "node-agent": "system:masters",
}
"""User name and group of every static token."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """A running control plane."""

    url: str
    """https://address:port"""
    folder: Path
    """Certificates, kubeconfigs and logs."""
    tokens: dict[str, str]
    """Bearer token by user name."""

    @property
    def ca_bundle(self) -> Path:
        """The certificate that clients must trust."""
        return self.folder / "certificates" / "apiserver.crt"

    def kubeconfig(self, user: str, token: str = "") -> Path:
        """Write a kubeconfig for one user (with a token of its own, if given) and return its path."""
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        text = yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca_bundle)}}
                ],
                "users": [{"name": user, "user": {"token": token or self.tokens[user]}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
                "current-context": "test",
            }
        )
        part = path.with_suffix(f".{secrets.token_hex(4)}")
        part.write_text(text)
        part.chmod(0o600)
        part.replace(path)  # a program that reads the one before never finds half of it
        return path

    def client(self, user: str, token: str = "") -> ApiClient:
        """Return a client that speaks as a user (see `kubeconfig`)."""
        return new_client_from_config(str(self.kubeconfig(user, token)))

    def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token of a ServiceAccount, as a pod of it would get, good for an hour."""
        with self.client("admin") as api:
            request = {"spec": {"expirationSeconds": 3600}}
            answer = CoreV1Api(api).create_namespaced_service_account_token(name, namespace, request)
            return str(answer.status.token)

    def service_account_client(self, namespace: str, name: str) -> ApiClient:
        """Return a client that speaks as a ServiceAccount."""
        return self.client(f"{namespace}-{name}", self.service_account_token(namespace, name))


@contextmanager
def new_namespace(admin: ApiClient) -> Iterator[str]:
    """Make a namespace in which pods can be made; delete it on the way out, with all in it."""
    name = f"test-{secrets.token_hex(3)}"
    core = CoreV1Api(admin)
    core.create_namespace({"metadata": {"name": name}})
    deadline = time.monotonic() + PATIENCE
    while not core.list_namespaced_service_account(name).items:
        if time.monotonic() > deadline:
            pytest.fail(f"the namespace {name} got no ServiceAccount")
        time.sleep(0.05)
    try:
        yield name
    finally:
        core.delete_namespace(name)


def find_programs() -> None:
    """Skip the test where the programs can be neither found nor built."""
    missing = [name for name in PROGRAMS if not (BIN / name).exists()]
    if missing and shutil.which("go") is None:
        pytest.skip(f"{', '.join(missing)} are not built and Go is not installed to build them with")
    if missing:
        pytest.fail(f"{', '.join(missing)} are not built; `make tools` builds them")


@contextmanager
def running_control_plane(
    folder: Path, *, address: str = LOOPBACK, port: int = 0, users: Mapping[str, str] | None = None
) -> Iterator[ControlPlane]:
    """Start a control plane with an empty cluster; stop it on the way out.

    Args:
        folder: An empty folder for data, certificates and logs.
        address: Where the API server listens: where real nodes reach it, or loopback.
        port: Of the API server; 0 takes a free one.
        users: More users and their groups, such as the nodes.
    """
    find_programs()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        plane = _start(folder, processes, address, port or free_port(), {**USERS, **(users or {})})
        yield plane
    finally:
        for process in processes:
            process.kill()  # nothing here outlives the test, so nothing needs to be written down in good order
        for process in processes:
            process.wait(PATIENCE)


def _start(
    folder: Path, processes: list[subprocess.Popen[bytes]], address: str, port: int, users: Mapping[str, str]
) -> ControlPlane:
    certificates = folder / "certificates"
    certificates.mkdir(parents=True)
    key = certificates / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True, timeout=PATIENCE)
    tokens = {user: secrets.token_hex(16) for user in users}
    lines = [f'{token},{user},{user},"{users[user]}"' for user, token in tokens.items()]
    (certificates / "tokens.csv").write_text("\n".join(lines) + "\n")
    clients, peers = (free_port() for _ in range(2))
    store = f"http://127.0.0.1:{clients}"
    processes.append(
        _run(
            folder,
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-cluster=default=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync",
        )
    )
    plane = ControlPlane(url=f"https://{address}:{port}", folder=folder, tokens=tokens)
    processes.append(
        _run(
            folder,
            "kube-apiserver",
            f"--etcd-servers={store}",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={port}",
            f"--cert-dir={certificates}",
            f"--token-auth-file={certificates / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--anonymous-auth=false",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=false",
            # Endpoints cannot be on loopback; real pods reach the API server by its Service.
            *(["--endpoint-reconciler-type=none"] if address == LOOPBACK else []),
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={_audit_policy(folder)}",
            f"--audit-log-path={folder / AUDIT}",
        )
    )
    _wait_ready(plane, processes[-1])
    processes.append(
        _run(
            folder,
            "kube-controller-manager",
            f"--kubeconfig={plane.kubeconfig('system:kube-controller-manager')}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={plane.ca_bundle}",
            "--leader-elect=false",
            "--secure-port=0",
            "--controllers=*,-bootstrapsigner,-tokencleaner,-node-ipam-controller,-cloud-node-lifecycle-controller",
            "--node-monitor-period=1s",
            "--node-monitor-grace-period=8s",
            "--concurrent-job-syncs=10",
            # The controllers that a test waits for remove what earlier ones left, too: not throttled.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )
    )
    processes.append(
        _run(
            folder,
            "kube-scheduler",
            f"--kubeconfig={plane.kubeconfig('system:kube-scheduler')}",
            "--leader-elect=false",
            "--secure-port=0",
        )
    )
    _wait_controlled(plane)
    return plane


def _audit_policy(folder: Path) -> Path:
    """Have the API server write down what ServiceAccounts ask, but not what they are answered."""
    path = folder / "audit-policy.yaml"
    accounts = {"level": "Metadata", "userGroups": ["system:serviceaccounts"]}
    rules = [{"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]}, accounts, {"level": "None"}]
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
    path.write_text(yaml.safe_dump(policy))
    return path


def _run(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [BIN / name, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "GOMAXPROCS": "2"},
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )


def _wait_ready(plane: ControlPlane, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            http = urllib3.PoolManager(ca_certs=str(plane.ca_bundle), timeout=2.0, retries=False)
            answer = http.request("GET", f"{plane.url}/readyz", headers=_bearer(plane))
            if answer.status == 200:
                return
        except (urllib3.exceptions.HTTPError, OSError):
            pass
        time.sleep(0.2)
    pytest.fail(f"kube-apiserver did not start: {(plane.folder / 'kube-apiserver.log').read_text()[-3000:]}")


def _wait_controlled(plane: ControlPlane) -> None:
    """Wait for the controllers: pods can be made once there is a ServiceAccount."""
    deadline = time.monotonic() + PATIENCE
    with plane.client("admin") as api:
        while time.monotonic() < deadline:
            if CoreV1Api(api).list_namespaced_service_account("default").items:
                return
            time.sleep(0.1)
    pytest.fail(f"the controllers did not start: {(plane.folder / 'kube-controller-manager.log').read_text()[-3000:]}")


def _bearer(plane: ControlPlane) -> dict[str, str]:
    return {"Authorization": f"Bearer {plane.tokens['admin']}"}


def free_port() -> int:
    """Return a port below those that the system hands out: until it is used, nobody else is given it."""
    for port in random.sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.fail(f"no port of {PORTS} is free")
