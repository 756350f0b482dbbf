"""Sparsifying the items of a dataset one after the other, in one pass or, for total amounts, in two."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_common.channels import find_channel
from cellsparse_common.dataset_items import label_shape
from cellsparse_common.datasets import put_labels, read_image, read_labels
from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.labels import count_labelled
from cellsparse_common.imaging.types import Indices
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import dataset_pb2
from cellsparse_sparsifier.cells import Cells, measure_cells
from cellsparse_sparsifier.selection import item_seed, select
from cellsparse_sparsifier.sparsify import Settings, keep_cells, unlabelled

Item = dataset_pb2.DatasetItem


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads and measures items.

    Attributes:
        store: Where the images and label images are.
        max_pixels: Largest image to read, height x width, of a stack x planes.
        check: Called before each item; raises what ends the work early.
        count: Called with the number of pixels of each item that was sparsified.
    """

    store: ObjectStore
    max_pixels: int
    check: Callable[[], None]
    count: Callable[[int], None] = lambda _: None

    def measure(self, item: Item, channel: str = "") -> Cells:
        """Measure one item's cells.

        Args:
            item: The item.
            channel: Number or name of the channel that counts; empty: the mean of all.

        Raises:
            InvalidArgument: An intensity is not finite.
            ResourceExhausted: The image is larger than `max_pixels`.
            StorageError: The item cannot be read.
        """
        self.check()
        shape = label_shape(item)
        if math.prod(shape) > self.max_pixels:
            spelled = " x ".join(map(str, shape))
            raise ResourceExhausted(
                f"Item {item.name!r} has {spelled} pixels; allowed: at most {self.max_pixels:,} in an image."
            )
        try:
            count = item.shape[-1] if item.axes.endswith("C") else 1
            number = find_channel(channel, item.channels, count, "settings.channel") if channel else None
            image = read_image(self.store, item)
            return measure_cells(
                image if number is None or count == 1 else image[..., number], read_labels(self.store, item)
            )
        except InvalidArgument as error:
            raise InvalidArgument(f"Item {item.name!r}: {error.message}", "settings.channel") from error
        except ValueError as error:
            raise InvalidArgument(f"Item {item.name!r} cannot be sparsified: {error}.", "dataset_id") from error


@dataclass(frozen=True, kw_only=True)
class SparseItem:
    """The result of one item: the item with its sparse label image, and the number of its candidate cells."""

    item: Item
    candidates: int


def measure_items(reader: Reader, items: Sequence[Item], channel: str = "") -> Iterator[npt.NDArray[np.float64]]:
    """Yield the mean intensities of each item's candidates, in the order of labels: the first pass of total amounts."""
    for item in items:
        cells = reader.measure(item, channel)
        yield cells.means[cells.candidate]


def sparsify_items(
    reader: Reader, items: Sequence[Item], settings: Settings, chosen: Sequence[Indices] | None
) -> Iterator[SparseItem]:
    """Sparsify items and writes their label images to the store, except those that keep no cell.

    Args:
        reader: Reads the items; its store is written to.
        items: The items, in order.
        settings: What to keep.
        chosen: For each item the indices of its chosen candidates; None to choose in each item by itself.

    Yields:
        The items in order; one that keeps no cell still has no `label_sha256`.
    """
    for index, item in enumerate(items):
        cells = reader.measure(item, settings.channel)
        candidates = np.flatnonzero(cells.candidate)
        kept = candidates[_choose(cells, item, settings) if chosen is None else chosen[index]]
        sparse = keep_cells(cells, kept, settings, spacing=item.spacing)
        reader.count(math.prod(label_shape(item)))
        result = Item()
        result.CopyFrom(item)
        result.label_sha256 = put_labels(reader.store, sparse.label, item.spacing) if kept.size else ""
        result.cells = kept.size
        result.labelled_pixels = count_labelled(sparse.label)
        yield SparseItem(item=result, candidates=candidates.size)


def write_blank_labels(store: ObjectStore, items: Sequence[Item]) -> None:
    """Give items that keep no cell a label image of -1 everywhere, one blob for all of the same size."""
    written: dict[tuple[tuple[int, ...], tuple[float, ...]], str] = {}
    for item in items:
        shape, spacing = label_shape(item), tuple(item.spacing)
        if (shape, spacing) not in written:
            written[shape, spacing] = put_labels(store, unlabelled(shape), spacing)
        item.label_sha256 = written[shape, spacing]


def _choose(cells: Cells, item: Item, settings: Settings) -> Indices:
    means = cells.means[cells.candidate]
    return select(means, mode=settings.mode, count=settings.count(means.size), seed=item_seed(settings.seed, item.name))
