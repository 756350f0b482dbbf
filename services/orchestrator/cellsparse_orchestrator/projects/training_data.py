"""Datasets of projects: the annotated images, or the annotated parts of large ones."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy import ndimage
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.dataset_items import refuse_mixture
from cellsparse_common.datasets import put_item, summarize, write_manifest
from cellsparse_common.errors import FailedPrecondition, InvalidArgument, NotFound
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore
from cellsparse_common.storage.blobs import read_blob
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.references import own_bytes
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectImageRow
from cellsparse_orchestrator.projects.image_locks import ImageLocks
from cellsparse_orchestrator.projects.label_files import read_labels
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.rows import extent_of, find_project, owner_of
from cellsparse_orchestrator.projects.tiling import TILE, Extent
from cellsparse_proto.v1 import common_pb2, dataset_pb2, project_pb2

WHOLE = 2**24
"""Images of at most so many pixels are taken whole."""
MARGIN = 128
"""Pixels around the labelled ones that are taken along."""
SMALLEST = 256
"""Fewest pixels along a side of a part."""
LARGEST = 4096
"""Most pixels along a side of a part."""
_NAME = 100
_ITEM_NAME = 180


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An annotated image."""

    id: str
    name: str
    sha256: str
    extent: Extent
    spacing: list[float]
    channels: list[str]
    """Names; empty where the image has none, or a release without names added it."""
    split: common_pb2.Split


class TrainingData:
    """Makes datasets of projects.

    Args:
        database: The tables.
        store: Holds images and labels, and receives the dataset.
        datasets: The table of datasets.
        tiles: Reads labels.
    """

    def __init__(self, database: Database, store: ObjectStore, datasets: Datasets, tiles: LabelTiles) -> None:
        self._database = database
        self._store = store
        self._datasets = datasets
        self._tiles = tiles
        self._locks = ImageLocks()

    def make(
        self, request: project_pb2.CreateProjectDatasetRequest, dataset_id: str = "", *, to_train: bool = False
    ) -> dataset_pb2.Dataset:
        """Make a dataset of the annotated images.

        Args:
            request: Project, name and splits.
            dataset_id: Its id; empty: a new one.
            to_train: Refuse a dataset that cannot be trained on.

        Raises:
            NotFound: There is no such project.
            InvalidArgument: A split names an image that is not the project's, or one twice; or 2D images and stacks
                are mixed.
            FailedPrecondition: Nothing is annotated.
        """
        with self._locks.hold(dataset_id or new_id("ds")), self._datasets.publishing.hold():
            return self._make(request, dataset_id, to_train=to_train)

    def _make(
        self, request: project_pb2.CreateProjectDatasetRequest, dataset_id: str, *, to_train: bool
    ) -> dataset_pb2.Dataset:
        if dataset_id:
            # A concurrent call of the same request may have been quicker, or its dataset may have been deleted.
            with suppress(NotFound):
                return self._datasets.get(dataset_id)
            if (known := self._datasets.revive(dataset_id)) is not None:
                return known
        name, owner, sources = self._sources(request)
        items: list[dataset_pb2.DatasetItem] = []
        names: set[str] = set()
        for source in sources:
            items += self._items(source, names)
        _check(items, request.project_id, to_train=to_train)
        dataset = summarize(
            items,
            dataset_id=dataset_id or new_id("ds"),
            name=request.name or valid_name(name, "project", _NAME),
            created_at=timestamp(now()),
        )
        manifest = dataset_pb2.DatasetManifest(dataset=dataset, items=items)
        write_manifest(self._store, manifest)
        try:
            self._datasets.add(dataset, owner, size=own_bytes(self._store, manifest))
        except IntegrityError:  # a concurrent call of the same request was quicker
            return self._datasets.get(dataset.id)
        return dataset

    def _sources(self, request: project_pb2.CreateProjectDatasetRequest) -> tuple[str, str, list[_Source]]:
        """Return the project's name, the project that it belongs to, and its annotated images, oldest first."""
        with self._database.read() as session:
            project = find_project(session, request.project_id)
            query = select(ProjectImageRow).where(ProjectImageRow.project_id == request.project_id)
            rows = list(session.scalars(query.order_by(ProjectImageRow.number)))
            splits = _splits(request, {row.id for row in rows})
            return (
                project.name,
                owner_of(project),
                [
                    _Source(
                        id=row.id,
                        name=row.name,
                        sha256=row.sha256,
                        extent=extent_of(row),
                        spacing=json.loads(row.spacing),
                        channels=json.loads(row.channel_names),
                        split=splits.get(row.id, common_pb2.SPLIT_TRAIN),
                    )
                    for row in rows
                    if row.labelled_pixels
                ],
            )

    def _items(self, source: _Source, names: set[str]) -> Iterator[dataset_pb2.DatasetItem]:
        labels = self._tiles.retry(lambda: read_labels(self._tiles, self._tiles.open(source.id, "")))
        data = read_blob(self._store, source.sha256)
        decoded = decode_image(
            data, max_pixels=labels.size, stacks=labels.ndim == 3, values_per_pixel=MAX_CHANNELS, trusted=True
        )
        pixels, channels = decoded.array, source.channels or decoded.channels
        del data
        first = valid_name(source.name, "image", _ITEM_NAME)
        for rows, columns in parts(labels):
            if not (labels[..., rows, columns] >= 0).any():
                continue
            if labels.ndim == 3:
                image, label = pixels[:, rows, columns], labels[:, rows, columns]
            else:
                image, label = pixels[rows, columns], labels[rows, columns]
            name = _unique(first, names)
            names.add(name)
            yield put_item(
                self._store,
                name=name,
                split=source.split,
                image=np.ascontiguousarray(image),
                label=np.ascontiguousarray(label),
                spacing=source.spacing,
                channels=channels,
            )


def parts(labels: Labels) -> list[tuple[slice, slice]]:
    """Return the rows and columns to train on: all of a small image, else windows around the labelled pixels.

    Labelled tiles that touch are one window, so that a cell is not cut; a window that is too large is divided.

    Args:
        labels: Axes YX or ZYX, -1 not labelled.
    """
    height, width = labels.shape[-2:]
    if labels.size <= WHOLE:
        return [(slice(0, height), slice(0, width))]
    labelled = (labels >= 0) if labels.ndim == 2 else (labels >= 0).any(0)
    padded = np.pad(labelled, ((0, -height % TILE), (0, -width % TILE)))
    tiles = padded.reshape(padded.shape[0] // TILE, TILE, -1, TILE).any((1, 3))
    groups, _ = ndimage.label(tiles, np.ones((3, 3)))
    found = []
    for rows, columns in ndimage.find_objects(groups):
        top, left = rows.start * TILE, columns.start * TILE
        inside = labelled[top : rows.stop * TILE, left : columns.stop * TILE]
        down, across = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
        down_parts = _divided(*_widened(top + int(down[0]), top + int(down[-1]) + 1, height))
        across_parts = _divided(*_widened(left + int(across[0]), left + int(across[-1]) + 1, width))
        found += list(product(down_parts, across_parts))
    return found


def _widened(begin: int, end: int, length: int) -> tuple[int, int]:
    """Return a range with its margin, not smaller than allowed, inside the image."""
    begin, end = begin - MARGIN, end + MARGIN
    missing = max(SMALLEST - (end - begin), 0)
    begin, end = begin - missing // 2, end + (missing + 1) // 2
    return max(begin, 0), min(end, length)


def _divided(begin: int, end: int) -> list[slice]:
    """Return a range in equal parts, none larger than allowed."""
    count = -(-(end - begin) // LARGEST)
    edges = [begin + (end - begin) * index // count for index in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(edges)]


def valid_name(name: str, otherwise: str, longest: int) -> str:
    """Return a name of the characters that names of datasets and items may have."""
    kept = re.sub(r"[^A-Za-z0-9._ -]+", "-", name).lstrip("._ -")
    return kept[:longest].rstrip() or otherwise


def dataset_of_request(project_id: str, request_id: str) -> str:
    """Return the id of the dataset of a training that the client gave a request id: the same for repeated calls."""
    return f"ds-{hashlib.sha256(f'{project_id}/{request_id}'.encode()).hexdigest()[:12]}"


def _unique(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free = f"{name} {number}"
        number += 1
    return free


def _splits(request: project_pb2.CreateProjectDatasetRequest, known: set[str]) -> dict[str, common_pb2.Split]:
    splits: dict[str, common_pb2.Split] = {}
    for field, split, ids in (
        ("val_image_ids", common_pb2.SPLIT_VAL, request.val_image_ids),
        ("test_image_ids", common_pb2.SPLIT_TEST, request.test_image_ids),
    ):
        for image_id in ids:
            if image_id not in known:
                raise InvalidArgument(
                    f"{field} names {image_id!r}, which is no image of project {request.project_id}.", field
                )
            if splits.setdefault(image_id, split) != split:
                raise InvalidArgument(f"Image {image_id} is in val_image_ids and in test_image_ids; give one.", field)
    return splits


def _check(items: Sequence[dataset_pb2.DatasetItem], project_id: str, *, to_train: bool) -> None:
    if not any(item.cells for item in items):
        raise FailedPrecondition(
            f"Project {project_id} has no annotated cell yet: mark at least one cell in an image, then try again."
        )
    if to_train and not any(item.cells for item in items if item.split == common_pb2.SPLIT_TRAIN):
        raise FailedPrecondition(
            f"All images with an annotated cell of project {project_id} are of split VAL or TEST: mark a cell in "
            "another image, or take one out of val_image_ids and test_image_ids."
        )
    refuse_mixture(items, "project_id")
