"""How large an image is, and whose its bytes are."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from images.containers import Docker
from images.service_images import ServiceImage, is_cuda, required

MB = 1e6
LARGEST = 12


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """All in MB (10^6 bytes) of files on disk, except where said.

    Attributes:
        total: All files of the image.
        base: Files that the base image has, too.
        cuda: NVIDIA's packages from the lock.
        framework: The framework, the stock tool, and all that these require by the lock, without CUDA.
        ours: All the rest: Python and tini from the distribution, all other libraries, our source.
        ours_pulled: The same, packed as a registry stores it and a node pulls it (tar, gzip).
        largest: The largest packages of `ours`.
    """

    total: float
    base: float
    cuda: float
    framework: float
    ours: float
    ours_pulled: float
    largest: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the values by name, rounded to 0.1 MB."""
        return {
            name: {key: round(number, 1) for key, number in value.items()} if name == "largest" else round(value, 1)
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an image holds: its sizes, the names of its packages, and files that look like weights."""

    sizes: Sizes
    packages: frozenset[str]
    weights: tuple[str, ...]


def look_into(docker: Docker, image: ServiceImage, reference: str, lock: dict[str, Any]) -> Contents:
    """Look at every file of an image.

    Args:
        docker: Where the image is, and its base.
        image: Which one.
        reference: Its full name with tag.
        lock: From `read_lock`.

    Raises:
        DockerError: A container could not be run.
    """
    base = docker.files(docker.base(reference))
    groups = dict.fromkeys(required(lock, image.framework), "framework")
    groups |= {name: "cuda" for name in required(lock, [image.package], image.extras) if is_cuda(name)}
    script = (Path(__file__).parent / "contents.py").read_text()
    found = docker.python(reference, script, {"base": base, "groups": groups})
    own = {name: size / MB for name, size in found["packages"].items() if name not in groups}
    largest = sorted(own.items(), key=lambda item: -item[1])[:LARGEST]
    part = {name: found["groups"].get(name, 0) / MB for name in ("base", "cuda", "framework", "ours")}
    sizes = Sizes(**part, total=sum(part.values()), ours_pulled=found["ours_gzip"] / MB, largest=dict(largest))
    packages = frozenset(name for name in found["packages"] if not name.startswith("/"))
    return Contents(sizes=sizes, packages=packages, weights=tuple(found["weights"]))
