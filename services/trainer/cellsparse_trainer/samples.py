"""Training and validation items as backends see them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from cellsparse_common.datasets import read_image, read_labels
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.images import normalize, to_gray
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2
from cellsparse_trainer.plan import Plan

CACHE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item, ready to train on."""

    name: str
    """Name of the item in its dataset."""
    image: npt.NDArray[np.float32]
    """Axes YX, one channel, normalised over the whole image to [0, 1]; read-only."""
    label: npt.NDArray[np.int32]
    """Axes YX: -1 not labelled, 0 background, n > 0 cell n; read-only."""


def labelled_items(manifest: dataset_pb2.DatasetManifest, split: "common_pb2.Split") -> list[dataset_pb2.DatasetItem]:
    """Return the items of a split that have a labelled pixel."""
    return [item for item in manifest.items if item.split == split and item.labelled_pixels]


def trainable_items(manifest: dataset_pb2.DatasetManifest) -> list[dataset_pb2.DatasetItem]:
    """Return the TRAIN items with a labelled cell.

    Raises:
        InvalidArgument: There is none.
    """
    items = [item for item in labelled_items(manifest, common_pb2.SPLIT_TRAIN) if item.cells]
    if not items:
        raise InvalidArgument(f"Dataset {manifest.dataset.id} has no TRAIN item with a labelled cell.", "dataset_id")
    return items


class StoredSamples(Sequence[Sample]):
    """Items of a dataset, read from the store when asked for; the newest stay in memory up to a bound."""

    def __init__(
        self,
        store: ObjectStore,
        items: Sequence[dataset_pb2.DatasetItem],
        plan: Plan,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._store = store
        self._items = list(items)
        self._plan = plan
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._free = cache_bytes

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self._items))[index]
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        sample = self._read(self._items[index])
        self._free -= _bytes(sample)
        self._cache[index] = sample
        while self._free < 0 and len(self._cache) > 1:
            self._free += _bytes(self._cache.popitem(last=False)[1])
        return sample

    def _read(self, item: dataset_pb2.DatasetItem) -> Sample:
        pixels = read_image(self._store, item)
        try:
            gray = to_gray(pixels, self._plan.channel)
        except InvalidArgument as error:
            raise InvalidArgument(f"Item {item.name!r}: {error.message}", "channel") from error
        image = normalize(gray, self._plan.lower_percentile, self._plan.upper_percentile)
        label = read_labels(self._store, item)
        if image.shape != label.shape:
            raise InvalidArgument(f"Item {item.name!r}: image {image.shape} and label {label.shape} differ in size.")
        image.setflags(write=False)
        label.setflags(write=False)
        return Sample(name=item.name, image=image, label=label)


def _bytes(sample: Sample) -> int:
    return sample.image.nbytes + sample.label.nbytes
