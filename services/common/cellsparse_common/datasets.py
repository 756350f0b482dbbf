"""Datasets in the store: a manifest in JSON, images and label images as blobs named by their hash.

Blobs are immutable and shared between datasets. A dataset exists as soon as its manifest does.
"""

import hashlib
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format, timestamp_pb2

from cellsparse_common.channels import MAX_CHANNELS, clean_names
from cellsparse_common.dataset_items import is_stack, label_shape
from cellsparse_common.errors import CellsparseError, Damaged, InvalidArgument, NotFound, StorageError
from cellsparse_common.files import disk_errors, sha256_of
from cellsparse_common.imaging.disk_array import DISK_BYTES
from cellsparse_common.imaging.file_content import read_content
from cellsparse_common.imaging.images import decode_image, encode_tiff, write_tiff
from cellsparse_common.imaging.labels import count_cells, count_labelled
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_common.storage.blobs import keep_blob
from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2

_LARGE = 2**24
"""Values of an image from which its file is kept on disk while it is read."""
VERSION = 1
"""Layout of the manifest."""
AXES = ("YX", "YXC", "ZYX", "ZYXC")
"""Axes that an item's image may have: one plane or a stack, with one channel or several."""


def read_manifest(store: ObjectStore, dataset_id: str) -> dataset_pb2.DatasetManifest:
    """Read a dataset's manifest.

    Raises:
        InvalidArgument: The id is not well formed.
        NotFound: There is no such dataset.
        StorageError: The manifest is damaged, of another version, or cannot be read.
    """
    try:
        data = store.get(keys.dataset_manifest(dataset_id))
    except NotFound as error:
        raise NotFound(f"Dataset {dataset_id} does not exist.", "dataset_id") from error
    manifest = dataset_pb2.DatasetManifest()
    try:
        # Unknown fields are ignored: the version shows whether they matter.
        json_format.Parse(data.decode("utf-8"), manifest, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"The manifest of dataset {dataset_id} in the store is damaged: {error}.") from error
    if manifest.version != VERSION:
        raise Damaged(
            f"The manifest of dataset {dataset_id} has layout version {manifest.version}; this release reads {VERSION}."
        )
    if manifest.dataset.id != dataset_id:
        raise Damaged(f"The manifest of dataset {dataset_id} in the store names dataset {manifest.dataset.id!r}.")
    for item in manifest.items:
        if item.axes not in AXES or len(item.shape) != len(item.axes) or min(item.shape) < 1:
            raise Damaged(
                f"The manifest of dataset {dataset_id} in the store is damaged: item {item.name!r} has axes "
                f"{item.axes!r} and shape {tuple(item.shape)}."
            )
    return manifest


def read_known_manifest(store: ObjectStore, dataset_id: str) -> dataset_pb2.DatasetManifest:
    """Read the manifest of a dataset that is known to exist, because the database lists it.

    Raises:
        InvalidArgument: The id is not well formed.
        StorageError: The manifest is missing, damaged, of another version, or cannot be read.
    """
    try:
        return read_manifest(store, dataset_id)
    except NotFound as error:
        raise missing_manifest(dataset_id) from error


def missing_manifest(dataset_id: str) -> StorageError:
    """Return the error for a dataset that the database lists and whose manifest the store does not have.

    Not `Damaged`: the folder may be the empty one where a disk is not mounted yet.
    """
    return StorageError(f"Dataset {dataset_id} exists, but the store does not have its manifest.")


def write_manifest(store: ObjectStore, manifest: dataset_pb2.DatasetManifest) -> None:
    """Write a manifest, which makes its dataset exist. The same manifest always gives the same bytes.

    Args:
        store: Where.
        manifest: The manifest, with `dataset.id`. `version` is set here.

    Raises:
        InvalidArgument: The id is not well formed.
        StorageError: The store failed.
    """
    written = dataset_pb2.DatasetManifest()
    written.CopyFrom(manifest)
    written.version = VERSION
    text = json_format.MessageToJson(written, preserving_proto_field_name=True, sort_keys=True, indent=1)
    store.put(keys.dataset_manifest(written.dataset.id), text.encode("utf-8"))


def put_blob(store: ObjectStore, data: bytes) -> str:
    """Store bytes under their SHA-256. Bytes that are already stored are read, and written again only if rotten.

    Returns:
        The hash, 64 hexadecimal digits.

    Raises:
        StorageError: The store failed.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    keep_blob(store, sha256, data)
    return sha256


def put_array(
    store: ObjectStore, array: npt.NDArray[np.generic], *, stack: bool = False, spacing: Sequence[float] = ()
) -> str:
    """Store an array as a TIFF file under its SHA-256; the file of a large one is never whole in memory.

    Args:
        store: Where.
        array: As `images.write_tiff` takes it.
        stack: Whether it is a stack.
        spacing: Micrometres per pixel along z, y and x of a stack; empty if not known.

    Returns:
        The hash, 64 hexadecimal digits.

    Raises:
        StorageError: The store failed.
    """
    if array.nbytes < DISK_BYTES:
        return put_blob(store, encode_tiff(array, stack=stack, spacing=spacing))
    with disk_errors("write a temporary file"), tempfile.TemporaryDirectory(prefix="cellsparse-") as folder:
        path = Path(folder) / "array.tif"
        with path.open("xb") as file:
            write_tiff(file, array, stack=stack, spacing=spacing)
        sha256 = sha256_of(path)
        keep_blob(store, sha256, path)
    return sha256


def put_labels(store: ObjectStore, label: Labels, spacing: Sequence[float] = ()) -> str:
    """Store a label image as an int32 TIFF file under its SHA-256, and return the hash (see `put_array`)."""
    stack = label.ndim == 3
    return put_array(store, label.astype(np.int32, copy=False), stack=stack, spacing=spacing if stack else ())


def put_item(
    store: ObjectStore,
    *,
    name: str,
    split: common_pb2.Split,
    image: npt.NDArray[np.generic],
    label: Labels,
    spacing: Sequence[float] = (),
    channels: Sequence[str] = (),
    stored: tuple[str, str] = ("", ""),
) -> dataset_pb2.DatasetItem:
    """Store an image with its label image and return the item that refers to them.

    Args:
        store: Where.
        name: Unique in its dataset.
        split: The item's split.
        image: Axes YX or YXC, of a stack (at least 2 planes) ZYX or ZYXC.
        label: Axes YX or ZYX, of the same size; -1 not labelled, 0 background, n > 0 cell n.
        spacing: Micrometres per pixel along each axis of the label; empty if not known.
        channels: Names of the image's channels; empty if not known: several get their numbers.
        stored: Hashes of the blobs of image and label that are there already; empty for those that are not.

    Raises:
        StorageError: The store failed.
    """
    stack = label.ndim == 3
    if label.shape != image.shape[: label.ndim] or image.ndim - label.ndim not in (0, 1):
        raise ValueError(f"A label image of {label.shape} does not belong to an image of {image.shape}.")
    return dataset_pb2.DatasetItem(
        name=name,
        split=split,
        image_sha256=stored[0] or put_array(store, image, stack=stack, spacing=spacing if stack else ()),
        label_sha256=stored[1] or put_labels(store, label, spacing),
        shape=image.shape,
        axes=("ZYX" if stack else "YX") + ("C" if image.ndim > label.ndim else ""),
        dtype=image.dtype.name,
        cells=count_cells(label),
        labelled_pixels=count_labelled(label),
        spacing=spacing,
        channels=clean_names(channels, image.shape[-1] if image.ndim > label.ndim else 1),
    )


def read_image(store: ObjectStore, item: dataset_pb2.DatasetItem) -> npt.NDArray[np.generic]:
    """Read an item's image, axes as `item.axes`.

    Raises:
        StorageError: It is missing or damaged, or the store failed.
    """
    image = _read(store, item, item.image_sha256, "image")
    if image.shape != tuple(item.shape):
        raise Damaged(f"The image of item {item.name!r} is {image.shape}; its manifest says {tuple(item.shape)}.")
    return image


def read_labels(store: ObjectStore, item: dataset_pb2.DatasetItem) -> Labels:
    """Read an item's label image: int32, axes YX or ZYX, -1 not labelled, 0 background, n > 0 cell n.

    Raises:
        StorageError: It is missing or damaged, or the store failed.
    """
    label = _read(store, item, item.label_sha256, "label image")
    if label.shape != label_shape(item) or label.dtype != np.int32:
        raise Damaged(
            f"The label image of item {item.name!r} is {label.dtype} {label.shape}; "
            f"int32 {label_shape(item)} belongs there."
        )
    return label.astype(np.int32, copy=False)


def summarize(
    items: Iterable[dataset_pb2.DatasetItem],
    *,
    dataset_id: str,
    name: str,
    created_at: timestamp_pb2.Timestamp,
    parent_id: str = "",
    sparsify: sparsifier_pb2.SparsifySettings | None = None,
) -> dataset_pb2.Dataset:
    """Return a dataset's summary with counts taken from its items.

    Args:
        items: All items of the dataset.
        dataset_id: Id of the dataset.
        name: Display name.
        created_at: When it was made, UTC.
        parent_id: The dataset it was sparsified from, empty for an upload.
        sparsify: How it was sparsified, None for an upload.
    """
    summary = dataset_pb2.Dataset(
        id=dataset_id, name=name, created_at=created_at, parent_id=parent_id, sparsify=sparsify
    )
    for item in items:
        summary.items += 1
        summary.cells += item.cells
        summary.pixels += math.prod(label_shape(item))
        summary.labelled_pixels += item.labelled_pixels
        if item.split == common_pb2.SPLIT_TRAIN:
            summary.train_items += 1
            summary.train_cells += item.cells
        elif item.split == common_pb2.SPLIT_VAL:
            summary.val_items += 1
        elif item.split == common_pb2.SPLIT_TEST:
            summary.test_items += 1
    return summary


def _read(store: ObjectStore, item: dataset_pb2.DatasetItem, sha256: str, what: str) -> npt.NDArray[np.generic]:
    """Read and decode one blob, whose hash the store compares."""
    try:
        data = _content(store, keys.blob(sha256), large=math.prod(item.shape) >= _LARGE)
    except (NotFound, InvalidArgument) as error:
        raise Damaged(f"The {what} of item {item.name!r} is missing from the store (blob {sha256!r}).") from error
    except Damaged as error:
        raise Damaged(f"The {what} of item {item.name!r} is damaged: b{error.message.removeprefix('B')}") from error
    try:
        size = math.prod(label_shape(item))
        return decode_image(
            data,
            max_pixels=size,
            field=what,
            stacks=is_stack(item),
            values_per_pixel=MAX_CHANNELS,
            trusted=True,
        ).array
    except CellsparseError as error:
        kind = StorageError if isinstance(error, StorageError) else Damaged  # a disk of this machine, or the object
        raise kind(f"The {what} of item {item.name!r} cannot be read: {error.message}") from error


def _content(store: ObjectStore, key: str, *, large: bool) -> bytes:
    """Return an object; a large one is not in memory but in a file that has no name any more."""
    if not large:
        return store.get(key)
    with disk_errors("write a temporary file"), tempfile.TemporaryDirectory(prefix="cellsparse-") as folder:
        path = Path(folder) / "object"
        store.fetch(key, path)
        return read_content(path)
