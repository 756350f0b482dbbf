"""Small synthetic datasets, written straight into a store."""

import numpy as np

from cellsparse_common import datasets
from cellsparse_proto.v1 import common_pb2, dataset_pb2

SPLITS = (common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST)


def blobs(size: int = 64, seed: int = 0, cells: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Bright discs on a dark ground: uint8 image and dense int32 label image, axes YX."""
    rng = np.random.default_rng(seed)
    label = np.zeros((size, size), np.int32)
    step = size // 2
    ys, xs = np.mgrid[:size, :size]
    for cell in range(cells):
        y, x = step // 2 + step * (cell // 2 % 2), step // 2 + step * (cell % 2)
        label[(ys - y) ** 2 + (xs - x) ** 2 < (size // 7) ** 2] = cell + 1
    image = np.where(label > 0, 120 + 20 * label, 20) + rng.integers(0, 15, label.shape)
    return image.astype(np.uint8), label


def sparse(label: np.ndarray, keep: int = 2) -> np.ndarray:
    """Keep the first cells and a stripe of background, unlabel the rest."""
    out = np.full(label.shape, -1, np.int32)
    out[(label > 0) & (label <= keep)] = label[(label > 0) & (label <= keep)]
    stripe = np.zeros(label.shape, bool)
    stripe[: label.shape[0] // 2] = True
    out[stripe & (label == 0)] = 0
    return out


def write_dataset(store, dataset_id: str = "ds-tiny", size: int = 64) -> dataset_pb2.DatasetManifest:
    """Write a dataset of one item per split; TRAIN and VAL sparse, TEST dense."""
    manifest = dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id=dataset_id, name="tiny"))
    for number, split in enumerate(SPLITS):
        image, dense = blobs(size, seed=number)
        label = dense if split == common_pb2.SPLIT_TEST else sparse(dense)
        manifest.items.append(datasets.put_item(store, name=f"item{number}", split=split, image=image, label=label))
    datasets.write_manifest(store, manifest)
    return manifest
