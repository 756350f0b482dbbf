"""The images there are, and what the lock puts into each."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TORCH = frozenset({"torch", "torchvision", "cellpose"})
TENSORFLOW = frozenset({"tensorflow", "tf-keras", "keras", "stardist", "csbdeep"})


@dataclass(frozen=True, kw_only=True)
class ServiceImage:
    """One service's image.

    Attributes:
        folder: Of `services/`; its Dockerfile is there.
        package: The service's package in the lock.
        own: Folders of `services/` whose source the image holds.
        port: Port that its server listens on by default.
        base: Build argument that names the base image.
        extras: Extras of the package that the image installs.
        framework: Packages that are the framework or the stock tool; what they require counts as framework, too.
        never: Packages that must not be in it.
        left_out: Names that `common` or `torch` imports for a part of it that the service does not use.
        health: Module of its health check.
    """

    folder: str
    package: str
    own: tuple[str, ...]
    port: int
    base: str = "BASE_IMAGE"
    extras: tuple[str, ...] = ()
    framework: frozenset[str] = field(default_factory=frozenset)
    never: frozenset[str] = TORCH | TENSORFLOW
    left_out: frozenset[str] = frozenset()
    health: str = "cellsparse_common.rpc.health"

    @property
    def name(self) -> str:
        """Name without registry and tag."""
        return f"cellsparse-{self.folder.replace('_', '-')}"

    @property
    def module(self) -> str:
        """What the container runs."""
        return self.package.replace("-", "_")


def _trainer(backend: str, port: int, framework: set[str], never: frozenset[str], *extras: str) -> ServiceImage:
    return ServiceImage(
        folder=f"trainer_{backend}",
        package=f"cellsparse-{backend.replace('_', '-')}",
        own=("common", "trainer", *(["torch"] if "torch" in framework else []), f"trainer_{backend}"),
        port=port,
        extras=extras,
        framework=frozenset(framework),
        never=never,
    )


SPARSIFIER = ServiceImage(
    folder="sparsifier", package="cellsparse-sparsifier", own=("common", "sparsifier"), port=50051
)
ORCHESTRATOR = ServiceImage(
    folder="orchestrator",
    package="cellsparse-orchestrator",
    own=("common", "orchestrator"),
    port=50050,
    base="PYTHON_IMAGE",
)
GATEWAY = ServiceImage(
    folder="gateway",
    package="cellsparse-gateway",
    own=("common", "gateway"),
    port=8000,
    base="PYTHON_IMAGE",
    extras=("sam",),
    left_out=frozenset({"minio", "urllib3"}),
    health="cellsparse_gateway.health",
)
TRAINERS = {
    "cellpose": _trainer("cellpose", 50052, {"torch", "cellpose"}, TENSORFLOW),
    "stardist": _trainer("stardist", 50053, {"tensorflow", "tf-keras", "stardist", "csbdeep"}, TORCH, "gpu"),
    "cellpose_sam": _trainer("cellpose_sam", 50055, {"torch", "cellpose", "segment-anything"}, TENSORFLOW, "framework"),
    "unet": replace(_trainer("unet", 50054, {"torch"}, TENSORFLOW | {"cellpose"}), left_out=frozenset({"cv2"})),
}
IMAGES = (SPARSIFIER, *TRAINERS.values(), ORCHESTRATOR, GATEWAY)


def read_lock(path: Path = ROOT / "uv.lock") -> dict[str, Any]:
    """Return the lock as it is."""
    return tomllib.loads(path.read_text())


def required(lock: dict[str, Any], packages: Iterable[str], extras: Iterable[str] = ()) -> frozenset[str]:
    """Return the names of packages and all that they require, on any platform.

    Args:
        lock: From `read_lock`.
        packages: Names to begin with; `extras` are theirs.
        extras: Names of extras.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in lock["package"]:
        entries.setdefault(entry["name"], []).append(entry)
    todo: list[tuple[str, str, str | None]] = [(name, extra, None) for name in packages for extra in ("", *extras)]
    seen = set(todo)
    while todo:
        name, extra, version = todo.pop()
        for entry in entries[name]:
            if version not in (None, entry.get("version")):
                continue  # another environment's version of the package
            listed = entry.get("optional-dependencies", {}).get(extra, []) if extra else entry.get("dependencies", [])
            for needed in listed:
                extras_of_it = ("", *needed.get("extra", []))
                new = {(needed["name"], more, needed.get("version")) for more in extras_of_it} - seen
                seen |= new
                todo.extend(new)
    return frozenset(name for name, _, _ in seen)


def is_cuda(package: str) -> bool:
    """Whether a package is a part of NVIDIA's CUDA."""
    return package.startswith(("nvidia-", "cuda-"))
