"""Training and validation items as backends see them."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.dataset_items import is_stack
from cellsparse_common.datasets import read_image, read_labels
from cellsparse_common.errors import Damaged, InvalidArgument
from cellsparse_common.imaging.images import brightness, normalize, normalize_channels, take_channels, to_gray
from cellsparse_common.imaging.labels import count_cells, count_labelled
from cellsparse_common.imaging.types import GrayImage
from cellsparse_common.storage import ObjectStore, open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.fed_image import LARGE_PIXELS, FedImage
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.patient_store import Outage, PatientStore

CACHE_BYTES = 2**30
LARGE = 2**22
"""Values of an image above which only one is worked on at once."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item, ready to train on."""

    name: str
    """Name of the item in its dataset."""
    image: npt.NDArray[np.float32]
    """Axes YX or ZYX, or with several channels YXC or ZYXC (see `Plan.channels`). Each channel is normalised over the
    whole image to [0, 1]. Read-only."""
    label: npt.NDArray[np.int32]
    """Axes as the image's without channels: -1 not labelled, 0 background, n > 0 cell n; read-only."""
    spacing: tuple[float, ...] = ()
    """Size of a pixel along each axis in micrometres; all 1 where it is unknown; empty means the same."""

    @property
    def gray(self) -> GrayImage:
        """How bright each pixel is: the mean of the channels; axes as the label's."""
        return brightness(self.image, self.label.ndim)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        return self.image.nbytes + self.label.nbytes


def labelled_items(manifest: dataset_pb2.DatasetManifest, split: "common_pb2.Split") -> list[dataset_pb2.DatasetItem]:
    """Return the items of a split that have a labelled pixel."""
    return [item for item in manifest.items if item.split == split and item.labelled_pixels]


def trainable_items(manifest: dataset_pb2.DatasetManifest) -> list[dataset_pb2.DatasetItem]:
    """Return the TRAIN items with a labelled pixel. Those that show background only are good examples, too.

    Raises:
        InvalidArgument: None of them has a labelled cell.
    """
    items = labelled_items(manifest, common_pb2.SPLIT_TRAIN)
    if not any(item.cells for item in items):
        raise InvalidArgument(f"Dataset {manifest.dataset.id} has no TRAIN item with a labelled cell.", "dataset_id")
    return items


def validation_items(manifest: dataset_pb2.DatasetManifest) -> list[dataset_pb2.DatasetItem]:
    """Return the VAL items with a labelled pixel; none if none has a labelled cell, as every model scores 0 there."""
    items = labelled_items(manifest, common_pb2.SPLIT_VAL)
    return items if any(item.cells for item in items) else []


class CachedSamples(Sequence[Sample]):
    """Samples made on demand; the last used stay in memory up to a bound.

    Args:
        cache_bytes: Bound on their memory; the newest sample is kept in any case.
    """

    def __init__(self, cache_bytes: int) -> None:
        self._cache_bytes = cache_bytes
        self._cache = SizedLruCache(self._make, cache_bytes)

    @abstractmethod
    def _make(self, index: int) -> Sample:
        """Make the sample of an index from 0, the same one every time."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._cache[range(len(self))[index]]

    @property
    def threads(self) -> int | None:
        """How many threads may work on different samples at once; None: as many as there are cores (`threads_for`)."""
        return 1

    def each(self) -> Iterator[Sample]:
        """Yield all samples in their order; those that are not in memory are read on all cores, if they are small."""
        return self._cache.each(range(len(self)), threads_for(self))


class StoredSamples(CachedSamples):
    """Items of a dataset, read from the store."""

    def __init__(
        self,
        store: ObjectStore,
        items: Sequence[dataset_pb2.DatasetItem],
        plan: Plan,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(cache_bytes)
        self._store = store
        self._items = list(items)
        self._plan = plan

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; it opens the store that its environment names, with its own cache."""
        items = [item.SerializeToString() for item in self._items]
        return {"items": items, "plan": self._plan, "cache_bytes": self._cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        items = [dataset_pb2.DatasetItem.FromString(item) for item in state["items"]]
        # A process that makes batches waits for a store that is away, until its parent ends it.
        store = PatientStore(open_store(StoreSettings()), Outage())
        store.expect()
        self.__init__(store, items, state["plan"], cache_bytes=state["cache_bytes"])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def threads(self) -> int | None:
        """One where an image is large."""
        return None if self.largest <= LARGE else 1

    @property
    def largest(self) -> int:
        """Values of the largest image, channels included; 0 without an image."""
        return max((math.prod(item.shape) for item in self._items), default=0)

    def _make(self, index: int) -> Sample:
        item = self._items[index]
        pixels = read_image(self._store, item)
        try:
            image = as_fed(pixels, self._plan, stack=is_stack(item))
        except InvalidArgument as error:
            raise InvalidArgument(f"Item {item.name!r}: {error.message}", "channel") from error
        label = read_labels(self._store, item)
        if image.shape[: label.ndim] != label.shape:
            raise InvalidArgument(f"Item {item.name!r}: image {image.shape} and label {label.shape} differ in size.")
        image.setflags(write=False)
        label.setflags(write=False)
        return Sample(name=item.name, image=image, label=label, spacing=tuple(item.spacing))


def as_fed(pixels: npt.NDArray[np.generic], plan: Plan, *, stack: bool) -> npt.NDArray[np.float32]:
    """Return an image as networks get it: the plan's channels, each scaled to [0, 1] by its own percentiles.

    Args:
        pixels: Axes YX or YXC, of a stack ZYX or ZYXC.
        plan: Names channels and percentiles.
        stack: Whether it is a stack.

    Returns:
        Axes YX or ZYX; with several channels YXC or ZYXC.

    Raises:
        InvalidArgument: The image does not have a channel.
    """
    scale = plan.lower_percentile, plan.upper_percentile
    if not stack and math.prod(pixels.shape[:2]) >= LARGE_PIXELS:

        def feed(part: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
            return take_channels(part, plan.channels) if plan.channels else to_gray(part, plan.channel)

        return FedImage(pixels, feed, *scale).whole()
    if plan.channels:
        return normalize_channels(take_channels(pixels, plan.channels, stack=stack), *scale)
    return normalize(to_gray(pixels, plan.channel, stack=stack), *scale)


def threads_for(samples: Sequence[Sample]) -> int | None:
    """Return how many threads may work on different samples at once; None: as many as there are cores.

    One where images are large, since each in work takes a multiple of its own memory. And one where a sample is cut
    from a stack, which threads would read once each.
    """
    if isinstance(samples, CachedSamples):
        return samples.threads
    return None if max((sample.label.size for sample in samples), default=0) <= LARGE else 1


def check_items(samples: CachedSamples, items: Sequence[dataset_pb2.DatasetItem]) -> None:
    """Read every item as a training will, so that a bad one ends a run before it costs anything.

    As many as fit stay in the memory of `samples`, for the training to come.

    Args:
        samples: Reads the items.
        items: What the manifest says about them.

    Raises:
        StorageError: An image or a label image is missing, damaged, or not the one that the manifest tells about.
        InvalidArgument: An item does not have the channel.
    """
    for item, sample in zip(items, samples.each(), strict=True):
        labelled, cells = count_labelled(sample.label), count_cells(sample.label)
        if (labelled, cells) != (item.labelled_pixels, item.cells):
            raise Damaged(
                f"The label image of item {item.name!r} has {cells} cells and {labelled} labelled pixels; "
                f"its manifest says {item.cells} and {item.labelled_pixels}."
            )
