"""Items of a dataset, and the messages of their upload."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cellsparse import enum_names
from cellsparse.errors import InvalidArgument, ResourceExhausted
from cellsparse.sources import parts_of, read_parts
from cellsparse_common.faults import Faults
from cellsparse_proto.v1 import common_pb2, dataset_pb2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Content: TypeAlias = "str | Path | bytes | npt.NDArray[np.generic]"
"""A path, the content of a file, or an array."""
FILES = (str, Path, bytes)
"""Contents that are files already."""


@dataclass(frozen=True)
class Stored:
    """An OME-Zarr image in the orchestrator's object store, which is read there, chunk by chunk."""

    path: str
    """Below imports/ in the store, such as "plate-1/field-3.zarr"."""
    time: int | None = None
    """Which time point, from 0; None: it is no time series."""
    z: int | None = None
    """Which plane becomes a 2D image, from 0; None: all of them."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image with its labels. A tuple of the first four fields can be used instead."""

    name: str
    """Unique in its dataset; letters, digits, dot, dash, underscore and space."""
    split: str | int
    """"train", "val" or "test"."""
    image: "Content | Stored"
    """File, file content, or array of axes YX, YXC, ZYX or ZYXC with 1 to 16 channels; see `axes`; or where it is in
    the store."""
    label: Content
    """File, file content, or integer array of axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n."""
    axes: str = ""
    """Axes of the image: YX, YXC, CYX, ZYX, ZYXC, ZCYX or CZYX; empty: from the file. Arrays of 3 axes, and files
    without named axes, hold channels where the first or last axis is at most 4 long, planes where it is 10 or longer;
    between these, and of files that do not say what 3 or 4 layers are, the axes must be given. Arrays of 4 axes are
    ZYXC."""
    spacing: tuple[float, ...] = ()
    """Micrometres per pixel along each axis of the label image; empty: from the file, else unknown."""
    channels: tuple[str, ...] = ()
    """Names of the image's channels in their order; empty: from the file, else their numbers from 0. An array of 8 bits
    with 3 channels last is red, green and blue."""


Items: TypeAlias = Iterable["Item | tuple[str, str | int, Content | Stored, Content]"]


def upload_messages(
    name: str, items: Items, label_kind: str, faults: Faults, read: Callable[[Item], Item] | None = None
) -> Iterator[dataset_pb2.CreateDatasetRequest]:
    """Yield the messages of an upload, holding one chunk of files, or one item of arrays, at a time.

    Items that cannot be sent are left out and reported to `faults`. Then the server is made to refuse the upload at
    its end, when it has seen all other items and can say what is wrong with them, too.

    Args:
        name: Name of the dataset.
        items: What to upload.
        label_kind: What the values of label images mean.
        faults: Takes what is wrong with items.
        read: Returns an item with arrays in place of files that the server could not read as they lie here; None: all
            are sent as they are.

    Raises:
        InvalidArgument: Unknown label kind, or no item.
    """
    request = dataset_pb2.CreateDatasetRequest
    kind = enum_names.number(dataset_pb2.LabelKind.DESCRIPTOR, label_kind, "label_kind")
    yield request(header=dataset_pb2.DatasetHeader(name=name, label_kind=kind))
    count = 0
    for files in files_of(items, faults, read):
        count += 1
        for file, content in files:
            yield request(file=file)
            for chunk in _chunks(content):
                yield request(chunk=chunk)
    # An empty message in place of the end: the server refuses the upload.
    yield request() if faults.count else request(end=dataset_pb2.UploadEnd(items=count))


def files_of(
    items: Items, faults: Faults, read: Callable[[Item], Item] | None = None
) -> Iterator[list[tuple[dataset_pb2.FileHeader, str | Path | bytes]]]:
    """Yield headers and contents of each item's files (see `upload_messages`); of a stored image the content is empty.

    Raises:
        InvalidArgument: There is no item.
    """
    any_item = False
    for entry in items:
        any_item = True
        try:
            item = entry if isinstance(entry, Item) else _item(*entry)
            files = _files(read(item) if read is not None else item)
        except (InvalidArgument, ResourceExhausted) as error:
            faults.add(error)
            continue
        yield files
    if not any_item:
        raise InvalidArgument("There is no item to upload; give at least one image with its labels.", "items")


def _files(item: Item) -> list[tuple[dataset_pb2.FileHeader, str | Path | bytes]]:
    """Return the headers and contents of an item's image and label file, which can be read.

    Raises:
        InvalidArgument: Unknown split, unreadable file, or an array that is no image.
    """
    split = enum_names.number(common_pb2.Split.DESCRIPTOR, item.split, "split")
    files = []
    for role in (dataset_pb2.FILE_ROLE_IMAGE, dataset_pb2.FILE_ROLE_LABEL):
        file = dataset_pb2.FileHeader(item=item.name, split=split, role=role)
        if role == dataset_pb2.FILE_ROLE_IMAGE:
            file.spacing.extend(item.spacing)
            file.channels.extend(item.channels)
            if isinstance(item.image, (*FILES, Stored)):
                file.axes = item.axes
            if isinstance(item.image, Stored):
                file.stored = item.image.path
                for name in ("time", "z"):
                    if (number := getattr(item.image, name)) is not None:
                        setattr(file, name, number)
        content = _file(item, role)
        if not isinstance(content, bytes):
            next(_chunks(content), None)  # so that a file that cannot be opened is found before anything is sent
        files.append((file, content))
    return files


def image_bytes(image: Content, axes: str = "") -> bytes:
    """Return the content of an image file; an array becomes a TIFF file that names its axes.

    Raises:
        InvalidArgument: The file cannot be read, or the array is no image.
    """
    if isinstance(image, FILES):
        return b"".join(_chunks(image))
    from cellsparse.arrays import image_file

    return image_file(image, axes, "image")


def _file(item: Item, role: dataset_pb2.FileRole) -> str | Path | bytes:
    """Return an item's image or label file; an array becomes the content of one."""
    content = item.image if role == dataset_pb2.FILE_ROLE_IMAGE else item.label
    if isinstance(content, FILES):
        return content
    if isinstance(content, Stored):
        return b""
    from cellsparse import arrays

    if role == dataset_pb2.FILE_ROLE_LABEL:
        return arrays.label_file(content, item.name)
    return arrays.image_file(content, item.axes, f"image of item {item.name!r}")


def _item(name: str, split: str | int, image: "Content | Stored", label: Content) -> Item:
    return Item(name=name, split=split, image=image, label=label)


def _chunks(content: str | Path | bytes) -> Iterator[bytes]:
    yield from parts_of(content) if isinstance(content, bytes) else read_parts(content)
