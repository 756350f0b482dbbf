"""A pod's command as a local process, with its environment and volumes.

Volumes are folders; what the environment says about a path below a mount is moved to the mount's folder.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubernetes.client import CoreV1Api

TESTS = Path(__file__).resolve().parents[1]


def start_process(
    core: CoreV1Api,
    pod: Mapping[str, Any],
    address: str,
    folder: Path,
    command: list[str],
    *,
    environment: Mapping[str, str],
    translate: Callable[[str], str],
) -> subprocess.Popen[bytes]:
    """Start the pod's first container.

    Args:
        core: For Secrets and ConfigMaps.
        pod: The pod.
        address: Its IP address.
        folder: An empty folder for its volumes and its log.
        command: What its image would run; a command of its own wins.
        environment: Variables of all pods.
        translate: Applied to all values and configuration files: turns names of a cluster's DNS into addresses.

    Raises:
        LookupError: A Secret or ConfigMap is missing.
    """
    container = pod["spec"]["containers"][0]
    mounts = _volumes(core, pod, folder, translate)
    given = [*container.get("command", []), *container.get("args", [])]
    moved = [translate(_moved(part, mounts)) for part in given]
    arguments = moved if "command" in container else [*command, *moved]
    if arguments[0] == "python":
        arguments[0] = sys.executable
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")},
        "PYTHONPATH": str(TESTS),
        "TMPDIR": str(mounts.get("/tmp", folder)),
        **environment,
        **{name: translate(_moved(value, mounts)) for name, value in _variables(core, pod, container, address).items()},
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            arguments,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )


def _variables(core: CoreV1Api, pod: Mapping[str, Any], container: Mapping[str, Any], address: str) -> dict[str, str]:
    metadata = pod["metadata"]
    fields = {
        "status.podIP": address,
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "spec.nodeName": pod["spec"]["nodeName"],
        **{f"metadata.labels['{name}']": value for name, value in metadata.get("labels", {}).items()},
        **{f"metadata.annotations['{name}']": value for name, value in metadata.get("annotations", {}).items()},
    }
    values: dict[str, str] = {}
    for variable in container.get("env", []):
        source = variable.get("valueFrom")
        if source is None:
            values[variable["name"]] = variable.get("value", "")
        elif "fieldRef" in source:
            values[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            asked = source["secretKeyRef"]
            values[variable["name"]] = _secret(core, metadata["namespace"], asked["name"])[asked["key"]].decode()
        else:
            raise LookupError(f"this agent cannot read {source}")
    return values


def _volumes(core: CoreV1Api, pod: Mapping[str, Any], folder: Path, translate: Callable[[str], str]) -> dict[str, Path]:
    """Make the folders of all volumes; return them by mount path, the longest first."""
    namespace, made = pod["metadata"]["namespace"], {}
    for volume in pod["spec"].get("volumes", []):
        place = made[volume["name"]] = folder / "volumes" / volume["name"]
        place.mkdir(parents=True)
        for source in (*volume.get("projected", {}).get("sources", []), volume):
            if "secret" in source:
                asked = source["secret"]
                files = _secret(core, namespace, asked.get("name") or asked["secretName"])
                _write(place, files, asked.get("items"))
            elif "configMap" in source:
                asked = source["configMap"]
                found = core.read_namespaced_config_map(asked["name"], namespace).data or {}
                _write(place, {name: translate(text).encode() for name, text in found.items()}, asked.get("items"))
    mounts = pod["spec"]["containers"][0].get("volumeMounts", [])
    found = {mount["mountPath"].rstrip("/"): made[mount["name"]] for mount in mounts}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _write(folder: Path, files: Mapping[str, bytes], items: list[dict[str, str]] | None) -> None:
    for key, path in {item["key"]: item["path"] for item in items}.items() if items else zip(files, files, strict=True):
        (folder / path).write_bytes(files[key])


def _secret(core: CoreV1Api, namespace: str, name: str) -> dict[str, bytes]:
    found = core.read_namespaced_secret(name, namespace).data or {}
    return {key: base64.b64decode(value) for key, value in found.items()}


def _moved(value: str, mounts: Mapping[str, Path]) -> str:
    """Return where a path of the container is here; what a test put into its own /tmp stays where it is."""
    if Path(value).exists():
        return value
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return f"{folder}{value[len(path) :]}"
    return value
