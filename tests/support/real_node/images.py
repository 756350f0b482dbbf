"""Images of other people's programs that a real node runs, made of what is built here: MinIO, and the pause container.

Usage: python -m support.real_node.images [--docker PROGRAM]
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from support.control_plane import BIN
from support.real_node.configuration import PAUSE
from support.real_node.node import IMPORT_SECONDS

MINIO = "localhost/minio:node"
OWN = tuple(f"localhost/cellsparse-{name}:node" for name in ("orchestrator", "sparsifier", "gateway", "trainer-unet"))
"""Our own images, as `make node-images` names them."""


def make(docker: str) -> None:
    """Make both images.

    Raises:
        subprocess.CalledProcessError: Docker has failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        for program, name, dockerfile in (
            ("pause", PAUSE, 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n'),
            # The chart starts MinIO by a shell, which the orchestrator's image has.
            ("minio", MINIO, f"FROM {OWN[0]}\nCOPY minio /usr/local/bin/minio\nENTRYPOINT []\n"),
        ):
            context = Path(folder) / program
            context.mkdir()
            shutil.copy(BIN / program, context)
            (context / "Dockerfile").write_text(dockerfile)
            subprocess.run([docker, "build", "--tag", name, str(context)], check=True, timeout=IMPORT_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docker", default="docker")
    make(parser.parse_args().docker)
