"""`make images-check`: every image serves, trains, ends in order, and holds what it should; writes out/images.json.

Ours may be at most 150 MB per image. Counted is every file of the image that is not in the base image, and does not
belong to CUDA (NVIDIA's packages in the lock) or to the framework (torch, TensorFlow, the stock tool, and all they
need by the lock); packed with tar and gzip, as a registry stores it and a node pulls it. Sizes on disk are reported
beside it.
"""

import argparse
import json
import sys
from pathlib import Path

from images.containers import Docker, DockerError
from images.service_images import IMAGES, ROOT, ServiceImage, read_lock
from images.sizes import Contents, look_into
from images.system import try_system

LIMIT_MB = 150.0
LABELS = ("title", "description", "licenses", "version", "revision", "base.name")


def main() -> None:
    """Check all images; exit code 1 and a sentence per fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docker", default="docker", help="the docker command")
    parser.add_argument("--prefix", default="", help="what stands before the images' names: a registry and a slash")
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "images.json")
    arguments = parser.parse_args()
    docker = Docker(command=arguments.docker)
    try:
        docker.ask("version")
    except DockerError as error:
        sys.exit(f"images-check needs Docker with a running daemon: {error}.")
    references = {image.folder: f"{arguments.prefix}{image.name}:{arguments.tag}" for image in IMAGES}
    try:
        faults = check_all(docker, references, arguments.out)
    except DockerError as error:
        sys.exit(f"images-check cannot go on; has `make images` been run? {error}.")
    sys.exit("\n".join(faults) or 0)


def check_all(docker: Docker, references: dict[str, str], out: Path) -> list[str]:
    """Check contents, then the running system; write the report.

    Args:
        docker: Where the images are.
        references: Full image names by service folder.
        out: File of the report.

    Returns:
        A sentence per fault.

    Raises:
        DockerError: An image is missing, or Docker refused.
    """
    lock = read_lock()
    report: dict[str, object] = {"limit_ours_pulled_mb": LIMIT_MB, "images": {}}
    faults: list[str] = []
    print(f"{'MB':<28}{'total':>9}{'base':>9}{'CUDA':>9}{'framework':>10}{'ours':>9}{'ours pulled':>13}")
    for image in IMAGES:
        reference = references[image.folder]
        faults += configuration_faults(docker, reference)
        contents = look_into(docker, image, reference, lock)
        faults += content_faults(image, contents)
        sizes = contents.sizes
        print(
            f"{image.name:<28}{sizes.total:>9.0f}{sizes.base:>9.0f}{sizes.cuda:>9.0f}{sizes.framework:>10.0f}"
            f"{sizes.ours:>9.0f}{sizes.ours_pulled:>13.0f}",
            flush=True,
        )
        report["images"][image.name] = sizes.as_json()
    tried, broken = try_system(docker, references)
    report["system"] = tried
    faults += broken
    report["faults"] = faults
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    return faults


def configuration_faults(docker: Docker, reference: str) -> list[str]:
    """Return what is wrong with an image's user, labels and health check."""
    config = docker.config(reference)
    labels = config["Labels"] or {}
    faults = [
        f"{reference} has no label {name}." for name in LABELS if not labels.get(f"org.opencontainers.image.{name}")
    ]
    if config["User"] != "10001:10001":
        faults.append(f"{reference} runs as {config['User'] or 'root'!r}, not as 10001:10001.")
    if not config.get("Healthcheck"):
        faults.append(f"{reference} has no health check.")
    if config["Entrypoint"][0] != "/usr/bin/tini":
        faults.append(f"{reference} does not start with tini.")
    return faults


def content_faults(image: ServiceImage, contents: Contents) -> list[str]:
    """Return what an image holds and should not, or lacks."""
    faults = [f"{image.name} holds {name}." for name in sorted(contents.packages & image.never)]
    faults += [f"{image.name} lacks {name}." for name in sorted(image.framework - contents.packages)]
    faults += [f"{image.name} holds what looks like weights: {path}." for path in contents.weights]
    if contents.sizes.ours_pulled > LIMIT_MB:
        faults.append(f"Ours in {image.name} is {contents.sizes.ours_pulled:.0f} MB packed; allowed: {LIMIT_MB:.0f}.")
    return faults


if __name__ == "__main__":
    main()
