"""3D stacks in training: which axes a dataset has, and stacks as the 2D planes that some backends train on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellsparse_common.dataset_items import is_stack, refuse_mixture
from cellsparse_common.datasets import read_labels
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.samples import CACHE_BYTES, CachedSamples, Sample
from cellsparse_trainer.processes.job import Plane


def find_axes(manifest: dataset_pb2.DatasetManifest) -> str:
    """Return the axes of what a run trains and validates on, "YX" or "ZYX".

    Raises:
        InvalidArgument: Some items are 2D and others stacks; names one of each.
    """
    used = [item for item in manifest.items if item.split != common_pb2.SPLIT_TEST]
    refuse_mixture(used, "dataset_id")
    return "ZYX" if any(is_stack(item) for item in used) else "YX"


def labelled_planes(store: ObjectStore, items: Sequence[dataset_pb2.DatasetItem]) -> list[Plane]:
    """Return the planes with a labelled pixel, in order; one stack is in memory at a time.

    Raises:
        StorageError: A label image cannot be read.
    """
    planes = []
    for index, item in enumerate(items):
        labelled = (read_labels(store, item) >= 0).any(axis=(1, 2))
        planes += [(index, int(z)) for z in np.flatnonzero(labelled)]
    return planes


def spread(planes: Sequence[Plane], most: int) -> list[Plane]:
    """Return at most `most` of the planes at equal distances, so that they show all depths of all stacks."""
    chosen = np.linspace(0, len(planes) - 1, min(most, len(planes))).round().astype(int)
    return [planes[at] for at in chosen]


def common_spacing(items: Sequence[dataset_pb2.DatasetItem]) -> list[float]:
    """Return the median size of a pixel along each axis, empty where it is not known of every item."""
    known = [tuple(item.spacing) for item in items]
    if not all(known) or len({len(spacing) for spacing in known}) != 1:
        return []
    return [float(size) for size in np.median(np.array(known), axis=0)]


class PlaneSamples(CachedSamples):
    """Planes of stacks as 2D samples, normalised with their whole stack.

    A plane that is not in memory is cut from its stack, which `stacks` may have to read again.
    """

    def __init__(self, stacks: Sequence[Sample], planes: Sequence[Plane], *, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(cache_bytes)
        self._stacks = stacks
        self._planes = list(planes)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; it fills its own cache."""
        return {**self.__dict__, "_cache": SizedLruCache(self._make, self._cache_bytes)}

    def __len__(self) -> int:
        return len(self._planes)

    def _make(self, index: int) -> Sample:
        item, z = self._planes[index]
        stack = self._stacks[item]
        # Copies, because a view would keep the whole stack in memory.
        image, label = stack.image[z].copy(), stack.label[z].copy()
        image.setflags(write=False)
        label.setflags(write=False)
        return Sample(name=f"{stack.name} plane {z}", image=image, label=label, spacing=stack.spacing[1:])
