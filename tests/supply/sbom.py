"""`make images-sbom`: writes what each image holds as SPDX 2.3, one JSON file per image in out/sbom.

Where Docker has the image, it is asked for its Python and Debian packages. Else the list is made from the lock, which
the image is built from: Python packages only. A comment in the file says which.
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from images.containers import Docker, DockerError
from images.service_images import IMAGES, ROOT, ServiceImage
from packaging.requirements import Requirement
from spdx_tools.common.spdx_licensing import spdx_licensing
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)
from spdx_tools.spdx.writer.write_anything import write_file
from supply import installed

_REQUIREMENT = re.compile(r"^[A-Za-z0-9][\w.-]*==.*?(?= *\\$| *$)", re.MULTILINE)
_SECONDS = 300
_MACHINE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A package in an image."""

    kind: str
    """Type of its package URL: pypi or deb."""
    name: str
    version: str
    licence: str = ""
    """SPDX expression; empty: not known."""
    qualifiers: str = ""
    """What follows in its package URL."""

    @property
    def url(self) -> str:
        """Its package URL."""
        space = "debian/" if self.kind == "deb" else ""
        return f"pkg:{self.kind}/{space}{self.name.lower()}@{self.version.replace('+', '%2B')}{self.qualifiers}"


def main() -> None:
    """Write the files; exit code 1 and a sentence where that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docker", default="docker", help="the docker command")
    parser.add_argument("--prefix", default="", help="what stands before the images' names: a registry and a slash")
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--uv", default="uv", help="the uv command")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "sbom")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    docker = Docker(command=given.docker)
    for image in IMAGES:
        reference = f"{given.prefix}{image.name}:{given.tag}"
        try:
            parts, origin = from_image(docker, reference), f"Packages installed in {reference}."
        except DockerError as error:
            try:
                parts = from_lock(image, given.uv)
            except (OSError, subprocess.SubprocessError) as failed:
                sys.exit(f"images-sbom: neither Docker nor uv can say what {reference} holds: {error}; {failed}.")
            origin = "Python packages of uv.lock; the image was not there to be asked for its Debian packages."
        file = given.out / f"{image.name}.spdx.json"
        write_file(document(image, parts, origin), str(file))
        print(f"{file}: {len(parts)} packages. {origin}")


def from_image(docker: Docker, reference: str) -> list[Part]:
    """Return what is installed in an image.

    Raises:
        DockerError: There is no such image, or no Docker.
    """
    docker.ask("image", "inspect", reference)
    script = Path(installed.__file__).read_text()
    command = ("run", "--rm", "--interactive", "--network=none", "--entrypoint=python", reference, "-")
    answer = docker.ask(*command, given=script, seconds=_SECONDS)
    return parts_of(json.loads(answer))


def parts_of(found: dict[str, list[dict[str, str]]]) -> list[Part]:
    """Return what `installed` printed."""
    parts = [
        Part(kind="pypi", name=each["name"], version=each["version"], licence=each["license"])
        for each in found["python"]
    ]
    for each in found["system"]:
        arch = f"?arch={each['architecture']}"
        parts.append(Part(kind="deb", name=each["name"], version=each["version"], qualifiers=arch))
    return parts


def from_lock(image: ServiceImage, uv: str) -> list[Part]:
    """Return the Python packages that an image's build installs; see `locked`."""
    return locked(uv, image.package, image.extras, "3.11" if image.base == "PYTHON_IMAGE" else "3.12")


def locked(uv: str, package: str, extras: Sequence[str], python: str) -> list[Part]:
    """Return what the lock installs for one of our packages on Linux on x86-64.

    Args:
        uv: The uv command.
        package: Our package.
        extras: Its extras.
        python: Version of Python, such as 3.12.

    Raises:
        OSError: There is no such command.
        subprocess.SubprocessError: It failed.
    """
    chosen = [argument for extra in extras for argument in ("--extra", extra)]
    command = [uv, "export", "--frozen", "--quiet", "--no-default-groups", "--no-emit-workspace", "--no-header"]
    command += ["--no-annotate", "--no-hashes", "--package", package, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=True)
    machine = {**_MACHINE, "python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    known = {each["name"].lower().replace("_", "-"): each for each in _here()}
    parts = []
    for line in _REQUIREMENT.findall(done.stdout):
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate(machine):
            continue
        (pin,) = needed.specifier
        here = known.get(needed.name, {})
        licence = here.get("license", "") if here.get("version") == pin.version else ""
        parts.append(Part(kind="pypi", name=needed.name, version=pin.version, licence=licence))
    return parts


@functools.cache
def _here() -> tuple[dict[str, str], ...]:
    return tuple(installed.python_packages())


def base_of(image: ServiceImage) -> tuple[str, str]:
    """Return name and SHA-256 digest of an image's base, as its Dockerfile has them."""
    text = (ROOT / "services" / image.folder / "Dockerfile").read_text()
    found = re.search(rf"^ARG {image.base}=(\S+)@sha256:([0-9a-f]{{64}})$", text, re.MULTILINE)
    assert found, f"the base of {image.folder} has no digest"
    return found[1], found[2]


def document(image: ServiceImage, parts: Sequence[Part], origin: str) -> Document:
    """Return the list of an image's parts as an SPDX document. Equal parts at the same commit give an equal one.

    Args:
        image: The image.
        parts: What it holds, beside our own source.
        origin: A sentence that says where the list comes from.
    """
    revision, created = _git("rev-parse", "HEAD") or "unknown", _committed()
    base, digest = base_of(image)
    content = json.dumps([image.name, revision, base, digest, [part.url for part in parts]])
    info = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=image.name,
        document_namespace=f"https://spdx.org/spdxdocs/{image.name}-{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        creators=[Actor(ActorType.TOOL, "cellsparse-images-sbom")],
        created=created,
        creator_comment=origin,
    )
    whole = Package(
        spdx_id="SPDXRef-Image",
        name=image.name,
        version=revision,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_declared=spdx_licensing.parse("BSD-3-Clause"),
        primary_package_purpose=PackagePurpose.CONTAINER,
    )
    below = Package(
        spdx_id="SPDXRef-Base",
        name=base.partition(":")[0],
        version=base.partition(":")[2],
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, digest)],
        primary_package_purpose=PackagePurpose.CONTAINER,
    )
    packages = [_package(number, part) for number, part in enumerate(parts, start=1)]
    relations = [
        Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, "SPDXRef-Image"),
        Relationship("SPDXRef-Image", RelationshipType.DESCENDANT_OF, "SPDXRef-Base"),
        *(Relationship("SPDXRef-Image", RelationshipType.CONTAINS, each.spdx_id) for each in packages),
    ]
    return Document(info, packages=[whole, below, *packages], relationships=relations)


def _package(number: int, part: Part) -> Package:
    reference = ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", part.url)
    return Package(
        spdx_id=f"SPDXRef-Package-{number}",
        name=part.name,
        version=part.version,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        license_declared=_licence(part.licence),
        external_references=[reference],
    )


def _licence(text: str) -> object:
    if not text or spdx_licensing.validate(text).errors:
        return SpdxNoAssertion()
    return spdx_licensing.parse(text)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()


def _committed() -> datetime:
    """When this commit was made, or SOURCE_DATE_EPOCH: so that the same sources give the same file."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or "0"
    return datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None)


if __name__ == "__main__":
    main()
