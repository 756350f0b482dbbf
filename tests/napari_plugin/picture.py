"""Takes the picture of docs/napari.md: real nuclei, a few of them drawn, a real training, the cells that it found.

PYTHONPATH=tests .venv/bin/python tests/napari_plugin/picture.py PICTURE.png
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from support.limits import LONG_PATIENCE
from support.paths import ROOT
from support.screen import screen

from cellsparse import Client, local_services
from cellsparse.demo.source import stardist_files

BACKEND = "stardist"
CELLS_PER_END = 5
"""Of the darkest and of the brightest cells."""


def main(picture: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _, record, _ = local_services.up(work / "home")
        try:
            files = _write_arrays(record.address, work)
            with screen() as display:
                subprocess.run(
                    [
                        ROOT / ".venv-napari/bin/python",
                        Path(__file__).with_name("application.py"),
                        *(record.address, *files, BACKEND, "0", picture.absolute()),
                    ],
                    env={**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "PYTHONPATH": str(ROOT / "tests")},
                    timeout=LONG_PATIENCE,
                    check=True,
                )
        finally:
            local_services.down(work / "home")
    _shrink(picture)


def _shrink(picture: Path) -> None:
    """Keep 256 colours: half the bytes, and nobody sees a difference."""
    with Image.open(picture) as full:
        small = full.convert("RGB").quantize(256)
    small.save(picture, optimize=True)


def _write_arrays(address: str, folder: Path) -> list[Path]:
    """Write the image, a few of its cells, and background beside them, as somebody would draw them."""
    image, label = stardist_files()
    with Client(address) as client:
        dense = client.create_dataset("dense", [("nuclei", "train", image, label)])
        sparse = client.sparsify(dense.id, mode="minmax", k=CELLS_PER_END, background="shifted")
        item = client.dataset_item(sparse.id, "nuclei")
    arrays = {
        "image": item.image,
        "cells": np.where(item.label > 0, item.label, 0),
        "background": (item.label == 0).astype(np.int32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [folder / f"{name}.npy" for name in arrays]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
