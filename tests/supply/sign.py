"""`make images-sign`: signs each pushed image with cosign, and attests what it holds (`make images-sbom`).

Signed is the digest that the registry gave, never a tag, which could be moved meanwhile.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from images.containers import Docker, DockerError
from images.service_images import IMAGES, ROOT

_SECONDS = 300


class SignError(Exception):
    """Why nothing more is signed, as one sentence."""


def main() -> None:
    """Sign all images; exit code 1 and a sentence where that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docker", default="docker", help="the docker command")
    parser.add_argument("--cosign", default="cosign", help="the cosign command")
    parser.add_argument("--key", default="", help="file or key service (KMS) of the private key")
    parser.add_argument("--prefix", default="", help="what stands before the images' names: a registry and a slash")
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--sbom", type=Path, default=ROOT / "out" / "sbom")
    given = parser.parse_args()
    try:
        if not given.key:
            raise SignError("it needs a key: make images-sign COSIGN_KEY=FILE; `cosign generate-key-pair` makes one")
        if shutil.which(given.cosign) is None:
            raise SignError(f"there is no command {given.cosign!r}; `make cosign` builds it where Go is installed")
        if not given.prefix:
            raise SignError("it signs what is in a registry: make images-sign REGISTRY=HOST/PATH, pushed before")
        for image in IMAGES:
            reference = f"{given.prefix}{image.name}:{given.tag}"
            listed = given.sbom / f"{image.name}.spdx.json"
            if not listed.is_file():
                raise SignError(f"{listed} is missing; `make images-sbom` writes it")
            pushed = pushed_digest(Docker(command=given.docker), reference)
            cosign(given.cosign, "sign", "--yes", "--key", given.key, pushed)
            what = ("--type", "spdxjson", "--predicate", str(listed))
            cosign(given.cosign, "attest", "--yes", "--key", given.key, *what, pushed)
            print(f"{pushed} is signed.")
    except SignError as error:
        sys.exit(f"images-sign: {error}.")


def pushed_digest(docker: Docker, reference: str) -> str:
    """Return an image as NAME@sha256:DIGEST, as its registry knows it.

    Raises:
        SignError: Docker does not have it, or it was never pushed.
    """
    name = reference.rpartition(":")[0]
    try:
        shown = docker.ask("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', reference)
    except DockerError as error:
        raise SignError(f"{reference} is not there: {error}") from None
    for each in shown.split():
        if each.startswith(f"{name}@sha256:"):
            return each
    raise SignError(f"{reference} has no digest of its registry; `docker push {reference}` gives it one")


def cosign(command: str, *arguments: str) -> None:
    """Run cosign.

    Raises:
        SignError: It failed, with what it said last.
    """
    try:
        done = subprocess.run(
            [command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SignError(f"cosign {arguments[0]} took longer than {_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        raise SignError(f"cosign {arguments[0]} of {arguments[-1]} failed: {said.rstrip('.')}")


if __name__ == "__main__":
    main()
