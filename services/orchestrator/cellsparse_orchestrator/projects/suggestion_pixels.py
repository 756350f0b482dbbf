"""Reads the images that are looked at for suggestions, and what is labelled in them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common import datasets
from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore
from cellsparse_common.storage.blobs import read_blob
from cellsparse_orchestrator.projects.label_files import read_labels
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.suggestion_sample import Part, Source

Pixels = npt.NDArray[np.generic]


class Reader:
    """Reads parts of images; of each kind, the whole image that was read last stays in memory.

    Args:
        store: Holds images, and the labels of datasets.
        tiles: Reads the annotations of projects.
    """

    def __init__(self, store: ObjectStore, tiles: LabelTiles) -> None:
        self._store = store
        self._tiles = tiles
        self._image = _Last(self._read_image)
        self._label = _Last(self._read_labels)

    def pixels(self, part: Part) -> Pixels:
        """Return a part's pixels, axes YX or YXC."""
        image = self._image(part.source)
        plane = image if part.plane is None else image[part.plane]
        return np.ascontiguousarray(plane[part.rows, part.columns])

    def slab(self, part: Part, most_voxels: int) -> tuple[Pixels, int]:
        """Return a part of a stack with planes around it, axes ZYX or ZYXC, and which of the planes is the part's own.

        Args:
            part: Has a plane.
            most_voxels: As many planes are taken as fit, 2 at least.
        """
        assert part.plane is not None
        planes = part.source.extent.planes
        count = min(planes, max(2, most_voxels // (part.shape[0] * part.shape[1])))
        first = min(max(0, part.plane - count // 2), planes - count)
        cut = self._image(part.source)[first : first + count, part.rows, part.columns]
        return np.ascontiguousarray(cut), part.plane - first

    def labels(self, part: Part) -> Labels | None:
        """Return a part's labels: -1 not labelled, 0 background, n cell n; None if nothing is labelled."""
        if not part.source.labelled:
            return None
        label = self._label(part.source)
        plane = label if part.plane is None else label[part.plane]
        inside = np.ascontiguousarray(plane[part.rows, part.columns])
        return inside if (inside >= 0).any() else None

    def _read_image(self, source: Source) -> Pixels:
        if source.item is not None:
            return datasets.read_image(self._store, source.item)
        extent = source.extent
        most = extent.height * extent.width * extent.planes
        data = read_blob(self._store, source.sha256)
        stack = extent.planes > 1
        return decode_image(data, max_pixels=most, values_per_pixel=MAX_CHANNELS, stacks=stack, trusted=True).array

    def _read_labels(self, source: Source) -> Labels:
        if source.item is not None:
            return datasets.read_labels(self._store, source.item)
        return self._tiles.retry(lambda: read_labels(self._tiles, self._tiles.open(source.id, "")))


class _Last:
    """Remembers what was read last."""

    def __init__(self, read: Callable[[Source], npt.NDArray[Any]]) -> None:
        self._read = read
        self._held: tuple[str, npt.NDArray[Any]] | None = None

    def __call__(self, source: Source) -> npt.NDArray[Any]:
        if self._held is None or self._held[0] != source.id:
            self._held = None  # two whole images need not fit into memory
            self._held = source.id, self._read(source)
        return self._held[1]
