"""What datasets and runs take in the store: bytes of the files that the services have written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from large import TILE, tile

import cellsparse
from cellsparse.demo.source import stardist_files
from cellsparse_common.datasets import read_manifest
from cellsparse_common.storage import keys
from cellsparse_common.storage.folder import FolderStore

MIB = 2**20
MADE_SIDE = 1024
"""Pixels of the made images in both directions."""


def write_images(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return image and label file by what they are: real ones, and made ones of 8 and 16 bit."""
    image, label = stardist_files()
    made, numbers = _made()
    grey = np.clip(made // 16, 0, 255).astype(np.uint8)
    dense = _write(folder / "dense.tif", numbers)
    return {
        f"nuclei, {_bits(image)}": (image, label),
        "made, 8 bit": (_write(folder / "made-8.tif", grey), dense),
        "made, 16 bit": (_write(folder / "made-16.tif", made), dense),
    }


def datasets(client: cellsparse.Client, store: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Upload each image with its labels, then keep some cells; return MiB in the store per million pixels."""
    found = {}
    for name, (image, label) in write_images(folder).items():
        pixels = tifffile.imread(label).size / 1e6
        dataset = client.create_dataset("sizing", [("one", "train", image, label)])
        sparse = client.sparsify(dataset.id, mode="minmax", k=4, background="shifted")
        image_bytes, label_bytes = _blobs(store, dataset.id)
        found[name] = {
            "megapixels": pixels,
            "image_mib": image_bytes / MIB / pixels,
            "labels_mib": label_bytes / MIB / pixels,
            "sparse_labels_mib": _blobs(store, sparse.id)[1] / MIB / pixels,
            "manifest_kib": (store / keys.dataset_manifest(dataset.id)).stat().st_size / 1024,
        }
        print(name, found[name], flush=True)
    return found


def run(store: Path, run_id: str) -> dict[str, Any]:
    """Return what one run that has ended takes: MiB of a checkpoint and of the model, KiB of records."""
    prefix = keys.run_prefix(run_id)
    found = {key.removeprefix(prefix): size for key, size in sizes(store).items() if key.startswith(prefix)}
    checkpoints: dict[str, int] = {}
    for key, size in found.items():
        parts = key.split("/")
        if parts[0] == "checkpoints" and len(parts) > 2:
            checkpoints[parts[1]] = checkpoints.get(parts[1], 0) + size
    model = sum(size for key, size in found.items() if key.startswith("model/"))
    events = found.get("attempts/1/events.jsonl", 0)
    log = found.get("attempts/1/log.txt", 0)
    return {
        "checkpoints": len(checkpoints),
        "checkpoint_mib": max(checkpoints.values()) / MIB,
        "model_mib": model / MIB,
        "events_kib": events / 1024,
        "log_kib": log / 1024,
        "other_kib": (sum(found.values()) - sum(checkpoints.values()) - model - events - log) / 1024,
    }


def sizes(store: Path) -> dict[str, int]:
    """Return the bytes of each object by its key."""
    return {path.relative_to(store).as_posix(): path.stat().st_size for path in _files(store)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _blobs(store: Path, dataset_id: str) -> tuple[int, int]:
    """Return the bytes of a dataset's one image and of its labels."""
    item = read_manifest(FolderStore(store), dataset_id).items[0]
    image, label = (store / keys.blob(sha256) for sha256 in (item.image_sha256, item.label_sha256))
    return image.stat().st_size, label.stat().st_size


def _made() -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy 16-bit image of discs, and its labels."""
    rng = np.random.default_rng(0)
    image, label = np.zeros((MADE_SIDE, MADE_SIDE)), np.zeros((MADE_SIDE, MADE_SIDE), np.int32)
    for top in range(0, MADE_SIDE, TILE):
        for left in range(0, MADE_SIDE, TILE):
            at = slice(top, top + TILE), slice(left, left + TILE)
            pixels, numbers = tile(rng)
            image[at] = pixels + rng.normal(0, 60, pixels.shape)
            label[at] = np.where(numbers > 0, numbers + label.max(), 0)
    return image.clip(0, 65535).astype(np.uint16), label


def _write(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


def _bits(path: Path) -> str:
    return f"{tifffile.imread(path).dtype.itemsize * 8} bit"
