"""Nodes that kwok plays: pods bound to them are ready at once, those of Jobs complete, and nothing really runs."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client
from support.control_plane import BIN, ControlPlane
from support.limits import PATIENCE

LABEL = "cellsparse.dev/played-by"
SIZE = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "2Ti"}
Nodes = dict[str, dict]


@contextmanager
def fake_nodes(plane: ControlPlane, folder: Path, nodes: Nodes) -> Iterator[None]:
    """Add nodes to a cluster, and take them away on the way out.

    Args:
        plane: The cluster.
        folder: For kwok's log.
        nodes: By node name its `labels`, `taints` and, as `resources`, what it has besides CPU and memory.
    """
    log = folder / "kwok.log"
    with plane.client("admin") as api, _running_kwok(plane, folder, log) as kwok:
        core = client.CoreV1Api(api)
        for name, node in nodes.items():
            core.create_node(_node(name, node))
        try:
            _wait_ready(core, nodes, kwok, log)
            yield
        finally:
            for name in nodes:
                core.delete_node(name)


@contextmanager
def _running_kwok(plane: ControlPlane, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        BIN / "kwok",
        f"--kubeconfig={plane.kubeconfig('node-agent')}",
        f"--manage-nodes-with-label-selector={LABEL}=kwok",
        # Renewed four times as often, well within the control plane's patience with a silent node.
        "--node-lease-duration-seconds=8",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GOMAXPROCS": "2"}
    with log.open("ab") as output:
        kwok = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield kwok
    finally:
        kwok.terminate()
        try:
            kwok.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            kwok.kill()
            kwok.wait(PATIENCE)


def _wait_ready(core: client.CoreV1Api, nodes: Nodes, kwok: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while kwok.poll() is None and time.monotonic() < end:
        found = core.list_node(label_selector=f"{LABEL}=kwok").items
        ready = {node.metadata.name for node in found for one in node.status.conditions or [] if _is_ready(one)}
        if ready >= nodes.keys():
            return
        time.sleep(0.2)
    pytest.fail(f"kwok does not play the nodes: {log.read_text()[-2000:]}")


def _is_ready(condition: client.V1NodeCondition) -> bool:
    return bool(condition.type == "Ready" and condition.status == "True")


def _node(name: str, node: dict) -> dict:
    size = {**SIZE, **node.get("resources", {})}
    return {
        "metadata": {"name": name, "labels": {LABEL: "kwok", "kubernetes.io/os": "linux", **node.get("labels", {})}},
        "spec": {"taints": node.get("taints", [])},
        "status": {"capacity": size, "allocatable": size},
    }
