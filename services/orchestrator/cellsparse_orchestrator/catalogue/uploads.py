"""Receive a dataset upload: a stream of messages becomes items in a spool, with one item at a time decoded."""

import hashlib
import threading
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellsparse_common.cpus import usable_cpus
from cellsparse_common.dataset_items import refuse_mixture
from cellsparse_common.datasets import put_item
from cellsparse_common.errors import Busy, InvalidArgument, NotFound, ResourceExhausted
from cellsparse_common.faults import Faults
from cellsparse_common.files import disk_errors
from cellsparse_common.imaging.canonical import is_canonical
from cellsparse_common.imaging.file_content import read_content
from cellsparse_common.imaging.images import Image, decode_image
from cellsparse_common.imaging.jpeg_orientation import UPRIGHT, jpeg_orientation
from cellsparse_common.imaging.labels import read_label_file
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.catalogue.stored_zarr import read_stored_zarr
from cellsparse_orchestrator.catalogue.upload_report import add_to_report
from cellsparse_proto.v1 import common_pb2, dataset_pb2

_IMAGE = dataset_pb2.FILE_ROLE_IMAGE
_LABEL = dataset_pb2.FILE_ROLE_LABEL
_NOUN = {_IMAGE: "image", _LABEL: "label"}
_AT_ONCE = threading.BoundedSemaphore(max(2, usable_cpus()))
"""Items of all uploads that are decoded at the same time: more would take more memory and end no sooner."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Limits of an upload's files."""

    max_pixels: int
    """Most pixels of an image: height x width, and x planes for a stack."""
    max_file_bytes: int


class DatasetUpload:
    """Receives the messages of one upload in order.

    Args:
        spool: Holds blobs until the whole stream has proved to be valid.
        files: Existing folder for the files of the item that is being received.
        limits: How large files may be.
        store: Holds images that are read where they lie.
        sent: Hashes of files that are blobs in the store already, and have just been read there.

    Attributes:
        reused: Sizes in bytes of those that the dataset takes as they are, by hash.
    """

    def __init__(
        self, spool: ObjectStore, files: Path, limits: UploadLimits, store: ObjectStore, sent: Collection[str] = ()
    ) -> None:
        self.reused: dict[str, int] = {}
        self._sent = sent
        self.items: list[dataset_pb2.DatasetItem] = []
        self.report = dataset_pb2.UploadReport()
        self.name = ""
        self._spool = spool
        self._store = store
        self._limits = limits
        self._kind = dataset_pb2.LABEL_KIND_INSTANCES
        self._begun = False
        self._ended = False
        self._names: set[str] = set()
        self._file: dataset_pb2.FileHeader | None = None
        self._files = files
        self._size = 0
        self._pair: dict[int, tuple[dataset_pb2.FileHeader, int]] = {}
        self._first: dataset_pb2.FileHeader | None = None
        self._faults = Faults()
        self._leader: dataset_pb2.DatasetItem | None = None

    def read(self, requests: Iterable[dataset_pb2.CreateDatasetRequest]) -> None:
        """Receive a whole stream.

        Raises:
            InvalidArgument: The messages come in a wrong order, files are not valid, or no item has a cell; the
                message names the items, all that are faulty.
            ResourceExhausted: A file or an image is too large; the message names the item.
            StorageError: The spool cannot be written.
        """
        try:
            for request in requests:
                self._take(request)
            if not self._ended:
                raise InvalidArgument("The upload stopped without its end message; nothing of it is kept.", "end")
        except InvalidArgument as error:
            fields = {field for field, _ in error.violations}
            if "part" in fields:
                self._end_file()  # the client gives up between two items
            if not self._faults.count or fields.isdisjoint(("end", "part")):
                self._faults.add(error)
        self._faults.raise_all()
        if not self.report.cells:
            raise InvalidArgument(
                f"The upload has no labelled cell in any of its items ({len(self.items)}, the first is "
                f"{self.items[0].name!r}): no value is above 0; mark at least one cell as 1 or more.",
                "items",
            )

    def _take(self, request: dataset_pb2.CreateDatasetRequest) -> None:
        part = request.WhichOneof("part")
        if part == "header":
            self._take_header(request.header)
        elif not self._begun:
            raise InvalidArgument("The first message of an upload must be its header.", "header")
        elif self._ended:
            raise InvalidArgument(f"The upload goes on with a {part} after its end; end comes last.", "end")
        elif part == "file":
            self._end_file()
            self._begin_file(request.file)
        elif part == "chunk":
            self._take_chunk(request.chunk)
        else:
            self._take_end(request.end.items)

    def _take_header(self, header: dataset_pb2.DatasetHeader) -> None:
        if self._begun:
            raise InvalidArgument("The upload has a second header; send one, as the first message.", "header")
        self._begun = True
        self.name = header.name
        self._kind = header.label_kind or dataset_pb2.LABEL_KIND_INSTANCES

    def _take_end(self, items: int) -> None:
        self._end_file()
        if self._first is not None:
            self._refuse_half(self._first)
        if items != len(self._names):
            raise InvalidArgument(f"The end names {items} items, but {len(self._names)} came.", "end.items")
        self._ended = True

    def _begin_file(self, file: dataset_pb2.FileHeader) -> None:
        first = self._first
        if first is None:
            if file.item in self._names:
                raise InvalidArgument(f"Item {file.item!r} is in the upload twice; item names are unique.", "file.item")
        elif file.item != first.item:
            self._refuse_half(first)
        elif file.role == first.role:
            raise InvalidArgument(f"Item {file.item!r} has two {_NOUN[file.role]} files; send one.", "file.role")
        elif file.split != first.split:
            raise InvalidArgument(
                f"Item {file.item!r} is in {common_pb2.Split.Name(first.split)} by its {_NOUN[first.role]} and in "
                f"{common_pb2.Split.Name(file.split)} by its {_NOUN[file.role]}; give one split.",
                "file.split",
            )
        if file.role == _LABEL and file.stored:
            raise InvalidArgument(
                f"The label file of item {file.item!r} is said to be in the store; send it, as only images are read "
                "there.",
                "file.stored",
            )
        if (file.HasField("time") or file.HasField("z")) and not file.stored:
            raise InvalidArgument(
                f"Item {file.item!r} is given a time or z; they choose a part of an image that is in the store.",
                "file.time" if file.HasField("time") else "file.z",
            )
        if file.role == _LABEL and (file.axes or file.spacing or file.channels):
            raise InvalidArgument(
                f"The label file of item {file.item!r} is given axes, spacing or channels; give them with the image "
                "only.",
                "file.axes" if file.axes else "file.spacing" if file.spacing else "file.channels",
            )
        self._file = file

    def _take_chunk(self, chunk: bytes) -> None:
        if self._file is None:
            raise InvalidArgument("A chunk came before any file; send the file's header first.", "chunk")
        if self._file.stored:
            raise InvalidArgument(
                f"The image of item {self._file.item!r} is in the store already; send nothing of it.", "chunk"
            )
        fitted = self._size <= self._limits.max_file_bytes
        self._size += len(chunk)
        path = self._path(self._file.role)
        if self._size <= self._limits.max_file_bytes:
            with disk_errors(f"write {path}"), path.open("ab" if self._size > len(chunk) else "wb") as file:
                file.write(chunk)
        elif fitted:
            path.unlink(missing_ok=True)
            self._faults.add(
                ResourceExhausted(
                    f"The {_NOUN[self._file.role]} file of item {self._file.item!r} is larger than "
                    f"{self._limits.max_file_bytes / 2**20:g} MiB, the most allowed.",
                    "chunk",
                )
            )

    def _end_file(self) -> None:
        if self._file is None:
            return
        file, size = self._file, self._size
        self._file, self._size = None, 0
        if not size and not file.stored:
            self._faults.add(InvalidArgument(f"The {_NOUN[file.role]} file of item {file.item!r} is empty.", "chunk"))
        self._pair[file.role] = (file, size)
        if self._first is None:
            self._first = file
            return
        (header, image_size), (_, label_size) = self._pair.pop(_IMAGE), self._pair.pop(_LABEL)
        self._first = None
        self._names.add(file.item)
        sizes = [label_size] if header.stored else [image_size, label_size]
        if all(0 < each <= self._limits.max_file_bytes for each in sizes):
            try:
                with nullcontext() if header.stored else _AT_ONCE:
                    self._keep(header, b"" if header.stored else self._content(_IMAGE), self._content(_LABEL))
            except Busy:
                raise  # no fault of the upload
            except (InvalidArgument, ResourceExhausted) as error:
                self._faults.add(error)

    def _path(self, role: dataset_pb2.FileRole) -> Path:
        return self._files / _NOUN[role]

    def _content(self, role: dataset_pb2.FileRole) -> bytes:
        path = self._path(role)
        with disk_errors(f"read {path}"):
            data = read_content(path)
            path.unlink()  # what reads it still can
        return data

    def _keep(self, header: dataset_pb2.FileHeader, image: bytes, label: bytes) -> None:
        """Decode an item's files and store them in the spool; `header` is that of the image."""
        field = f"label of item {header.item!r}"
        limit = self._limits.max_pixels
        pixels = self._pixels(header, image)
        shape = pixels.array.shape[: len(pixels.axes.rstrip("C"))]
        if header.spacing and len(header.spacing) != len(shape):
            raise InvalidArgument(
                f"Item {header.item!r} is given a spacing of {len(header.spacing)} numbers; its label image has "
                f"{len(shape)} axes.",
                "file.spacing",
            )
        channels = pixels.array.shape[-1] if pixels.axes.endswith("C") else 1
        if header.channels and len(header.channels) != channels:
            raise InvalidArgument(
                f"Item {header.item!r} is given {len(header.channels)} names of channels; its image has {channels}.",
                "file.channels",
            )
        read = read_label_file(label, shape=shape, max_pixels=limit, kind=self._kind, field=field)
        shaped = dataset_pb2.DatasetItem(name=header.item, axes=pixels.axes)
        self._leader = self._leader or shaped
        refuse_mixture([self._leader, shaped], "file.item")
        if self._faults.count:
            return  # nothing will be kept
        if note := _turned(image):
            read = replace(read, notes=[*read.notes, note])
        image_blob = self._as_sent(image, pixels.array) if not header.stored else ""
        item = put_item(
            self._spool,
            name=header.item,
            split=header.split,
            image=pixels.array,
            label=read.label,
            spacing=header.spacing or pixels.spacing,
            channels=header.channels or pixels.channels,
            stored=(image_blob, self._as_sent(label, read.label) if read.unchanged else ""),
        )
        self.items.append(item)
        add_to_report(self.report, item, read)

    def _as_sent(self, data: bytes, array: npt.NDArray[np.generic]) -> str:
        """Return the hash of a file that needs not be written again; empty: it has to be."""
        if not self._sent or not is_canonical(data, array):
            return ""
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in self._sent:
            return ""
        self.reused[sha256] = len(data)
        return sha256

    def _pixels(self, header: dataset_pb2.FileHeader, image: bytes) -> Image:
        """Return the pixels of an item's image, of its file or from the store."""
        limit = self._limits.max_pixels
        if not header.stored:
            return decode_image(
                image, max_pixels=limit, field=f"image of item {header.item!r}", stacks=True, axes=header.axes
            )
        try:
            return read_stored_zarr(
                self._store,
                header.stored,
                max_pixels=limit,
                axes=header.axes,
                time=header.time if header.HasField("time") else None,
                z=header.z if header.HasField("z") else None,
            )
        except NotFound as error:  # one of the faults of the upload
            raise InvalidArgument(f"Item {header.item!r}: {error.message}", "file.stored") from error

    def _refuse_half(self, first: dataset_pb2.FileHeader) -> None:
        other = _LABEL if first.role == _IMAGE else _IMAGE
        raise InvalidArgument(
            f"Item {first.item!r} has a {_NOUN[first.role]} file but no {_NOUN[other]} file; send both in a row.",
            "file.item",
        )


def _turned(image: bytes) -> str:
    """Return what the uploader should know about an image file that was turned upright; "" if it was not."""
    orientation = jpeg_orientation(image)
    if orientation == UPRIGHT:
        return ""
    return (
        f"its image was turned upright, as viewers show it (EXIF orientation {orientation}), and its labels have to "
        "fit the upright image"
    )
