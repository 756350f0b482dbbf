"""A sparse dataset from a dense one: which items, the progress, and the manifest that makes it visible at the end."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2
from cellsparse_sparsifier.items import (
    Item,
    Reader,
    SparseItem,
    measure_items,
    sparsify_items,
    write_blank_labels,
)
from cellsparse_sparsifier.requests import read_settings, read_splits
from cellsparse_sparsifier.selection import select_over
from cellsparse_sparsifier.target import derived_manifest, find_target, publish

Request = sparsifier_pb2.SparsifyDatasetRequest
Response = sparsifier_pb2.SparsifyDatasetResponse

MAX_WARNINGS = 20


def sparsify_dataset(reader: Reader, request: Request) -> Iterator[Response]:
    """Sparsify a dataset into a new one. It becomes visible when its manifest is written, at the very end.

    Repeating a request finds the same dataset and changes nothing.

    Args:
        reader: Reads the items; its store is written to.
        request: A request whose field rules hold.

    Yields:
        The progress after each item, and at last a message with `done`.

    Raises:
        AlreadyExists: The target is another dataset.
        InvalidArgument: The splits hold no item, or no item keeps a cell.
        NotFound: There is no such dataset.
        StorageError: The store failed.
    """
    settings = read_settings(request.settings)
    source = read_manifest(reader.store, request.dataset_id)
    existing = find_target(reader.store, request)
    items = _chosen_items(source, request)
    total = len(items)
    chosen = None
    if settings.k is None:
        means: list[npt.NDArray[np.float64]] = []
        for part in measure_items(reader, items, settings.channel):
            means.append(part)
            yield Response(items_total=total, items_measured=len(means))
        count = settings.count(sum(part.size for part in means))
        chosen = select_over(means, mode=settings.mode, count=count, seed=settings.seed)
        if not any(part.size for part in chosen):
            raise _nothing_kept(request, total)
    measured = 0 if chosen is None else total
    results: list[SparseItem] = []
    kept = 0
    for result in sparsify_items(reader, items, settings, chosen):
        results.append(result)
        kept += result.item.cells
        yield Response(items_done=len(results), items_total=total, cells_kept=kept, items_measured=measured)
    if not kept:
        raise _nothing_kept(request, total)
    write_blank_labels(reader.store, [result.item for result in results if not result.item.cells])
    reader.check()
    manifest = derived_manifest(source, request, [result.item for result in results])
    publish(reader.store, manifest, existing or find_target(reader.store, request))
    yield Response(
        items_done=total,
        items_total=total,
        cells_kept=kept,
        items_measured=measured,
        done=True,
        warnings=_warnings(results),
    )


def _nothing_kept(request: Request, items: int) -> InvalidArgument:
    return InvalidArgument(
        f"No cell of dataset {request.dataset_id} can be kept: none of the {items} items to sparsify has a cell whose "
        "pixels are not all on one line (in a stack: in one plane).",
        "dataset_id",
    )


def _chosen_items(source: dataset_pb2.DatasetManifest, request: Request) -> list[Item]:
    splits = read_splits(request)
    items = [item for item in source.items if item.split in splits]
    if not items:
        names = " or ".join(common_pb2.Split.Name(split) for split in sorted(splits))
        raise InvalidArgument(f"Dataset {request.dataset_id} has no item of split {names}.", "splits")
    return items


def _warnings(results: list[SparseItem]) -> list[str]:
    """Return sentences about items that kept no cell, at most `MAX_WARNINGS`."""
    barren = [result.item.name for result in results if not result.candidates]
    spared = sum(1 for result in results if result.candidates and not result.item.cells)
    sentences = [
        f"Item {name!r} keeps no cell: it has none whose pixels are not all on one line (in one plane)."
        for name in barren
    ]
    if spared:
        sentences.insert(0, f"{spared} item(s) keep no cell: the cells chosen over all items are elsewhere.")
    if len(sentences) > MAX_WARNINGS:
        rest = len(sentences) - (MAX_WARNINGS - 1)
        sentences[MAX_WARNINGS - 1 :] = [f"{rest} more item(s) keep no cell for the same reason."]
    return sentences
