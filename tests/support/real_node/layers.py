"""Docker's images on a node without a copy: containerd's snapshots are links to the layers that Docker has unpacked.

Both keep a layer as the folder that the kernel's overlay file system takes, and neither writes into it.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.limits import PATIENCE
from support.real_node.node import RealNode

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""What all containers get besides: the nodes share one machine, of whose cores each training would take all."""
_MEDIA = "application/vnd.oci.image"
Object = Mapping[str, Any]


def inspect(docker: str, references: Sequence[str]) -> list[Object]:
    """Return what Docker knows of images, in their order; empty unless it has all of them.

    Args:
        docker: The program whose daemon is asked.
        references: Names of the images.
    """
    asked = [docker, "image", "inspect", *references]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else []


def are_linkable(images: Sequence[Object]) -> bool:
    """Return whether Docker keeps the layers of these images as folders for the overlay file system."""
    return all(image.get("GraphDriver", {}).get("Name") == "overlay2" for image in images)


def link_images(node: RealNode, images: Mapping[str, Object]) -> None:
    """Give a node images of Docker's, which must stay there as long as the node runs.

    Args:
        node: A running node.
        images: What `inspect` says of each, by its name.

    Raises:
        RuntimeError: containerd does not take a layer or an image.
    """
    there: set[str] = set()
    for image in images.values():
        parent = ""
        for layer, folder in zip(image["RootFS"]["Layers"], _folders(image), strict=True):
            chain = _digest(f"{parent} {layer}".encode()) if parent else layer
            if chain not in there:
                _link(node, chain, parent, folder)
                there.add(chain)
            parent = chain
    # Their layers are there, so that of the images only the descriptions are imported.
    archive = node.folder / "images.tar"
    _write_archive(images, archive)
    _ctr(node, "images", "import", str(archive))


def _folders(image: Object) -> list[str]:
    """Return the folders of an image's layers, the lowest first."""
    data = image["GraphDriver"]["Data"]
    below = data.get("LowerDir", "")
    return [*reversed(below.split(":") if below else []), data["UpperDir"]]


def _link(node: RealNode, chain: str, parent: str, folder: str) -> None:
    """Make a layer's snapshot, on top of its parent's."""
    name = f"layer-{chain}"
    (mount,) = json.loads(_ctr(node, "snapshots", "prepare", "--mounts", name, *([parent] if parent else [])))
    options = dict(option.split("=", 1) for option in mount["Options"] if "=" in option)
    place = options["upperdir"] if mount["Type"] == "overlay" else mount["Source"]
    done = node.run("sh", "-c", 'rmdir "$0" && ln --symbolic "$1" "$0"', place, folder)
    if done.returncode:
        raise RuntimeError(f"{place} could not become a link to {folder}: {done.stderr.strip()}")
    _ctr(node, "snapshots", "commit", chain, name)


def _write_archive(images: Mapping[str, Object], archive: Path) -> None:
    """Write images in the layout of the Open Container Initiative, as tar and without layers."""
    files: dict[str, bytes] = {"oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode()}

    def add(content: Object, kind: str) -> dict[str, Any]:
        data = json.dumps(content).encode()
        digest = _digest(data)
        files[f"blobs/{digest.replace(':', '/')}"] = data
        return {"mediaType": f"{_MEDIA}.{kind}", "digest": digest, "size": len(data)}

    manifests = []
    for name, image in images.items():
        layers = image["RootFS"]["Layers"]
        platform = {"architecture": image["Architecture"], "os": image["Os"]}
        config = {
            **image["Config"],
            "Env": [*image["Config"]["Env"], *(f"{name}={value}" for name, value in ONE_THREAD.items())],
        }
        root = {"type": "layers", "diff_ids": layers}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": add({**platform, "config": config, "rootfs": root}, "config.v1+json"),
            "layers": [{"mediaType": f"{_MEDIA}.layer.v1.tar", "digest": layer, "size": 1} for layer in layers],
        }
        named = {"platform": platform, "annotations": {"io.containerd.image.name": name}}
        manifests.append({**add(manifest, "manifest.v1+json"), **named})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    with tarfile.open(archive, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _ctr(node: RealNode, *arguments: str) -> str:
    done = node.run("ctr", "--namespace=k8s.io", *arguments)
    if done.returncode:
        raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return done.stdout
