"""Receive a dataset upload: a stream of messages becomes items in a spool, with one item at a time in memory."""

from collections.abc import Iterable
from dataclasses import dataclass

from cellsparse_common.dataset_items import refuse_mixture
from cellsparse_common.datasets import put_item
from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.labels import decode_labels
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2

_IMAGE = dataset_pb2.FILE_ROLE_IMAGE
_LABEL = dataset_pb2.FILE_ROLE_LABEL
_NOUN = {_IMAGE: "image", _LABEL: "label"}


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
        limits: How large files may be.
    """

    def __init__(self, spool: ObjectStore, limits: UploadLimits) -> None:
        self.items: list[dataset_pb2.DatasetItem] = []
        self.name = ""
        self._spool = spool
        self._limits = limits
        self._kind = dataset_pb2.LABEL_KIND_INSTANCES
        self._begun = False
        self._ended = False
        self._names: set[str] = set()
        self._file: dataset_pb2.FileHeader | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._pair: dict[int, tuple[dataset_pb2.FileHeader, bytes]] = {}
        self._first: dataset_pb2.FileHeader | None = None

    def read(self, requests: Iterable[dataset_pb2.CreateDatasetRequest]) -> None:
        """Receive a whole stream.

        Raises:
            InvalidArgument: The messages come in a wrong order, or a file is not valid; the message names the item.
            ResourceExhausted: A file or an image is too large; the message names the item.
            StorageError: The spool cannot be written.
        """
        for request in requests:
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
        if not self._ended:
            raise InvalidArgument("The upload stopped without its end message; nothing of it is kept.", "end")

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
        if items != len(self.items):
            raise InvalidArgument(f"The end names {items} items, but {len(self.items)} came.", "end.items")
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
        self._size += len(chunk)
        if self._size > self._limits.max_file_bytes:
            raise ResourceExhausted(
                f"The {_NOUN[self._file.role]} file of item {self._file.item!r} is larger than "
                f"{self._limits.max_file_bytes / 2**20:g} MiB, the most allowed.",
                "chunk",
            )
        self._chunks.append(chunk)

    def _end_file(self) -> None:
        if self._file is None:
            return
        file, data = self._file, b"".join(self._chunks)
        self._file, self._chunks, self._size = None, [], 0
        if not data:
            raise InvalidArgument(f"The {_NOUN[file.role]} file of item {file.item!r} is empty.", "chunk")
        self._pair[file.role] = (file, data)
        if self._first is None:
            self._first = file
            return
        (header, image), (_, label) = self._pair.pop(_IMAGE), self._pair.pop(_LABEL)
        self._first = None
        self._names.add(file.item)
        item = self._keep(header, image, label)
        refuse_mixture([*self.items[:1], item], "file.item")
        self.items.append(item)

    def _keep(self, header: dataset_pb2.FileHeader, image: bytes, label: bytes) -> dataset_pb2.DatasetItem:
        """Decode an item's files and store them in the spool; `header` is that of the image."""
        field = f"label of item {header.item!r}"
        limit = self._limits.max_pixels
        pixels = decode_image(
            image, max_pixels=limit, field=f"image of item {header.item!r}", stacks=True, axes=header.axes
        )
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
        numbers = decode_labels(label, shape=shape, max_pixels=limit, kind=self._kind, field=field)
        return put_item(
            self._spool,
            name=header.item,
            split=header.split,
            image=pixels.array,
            label=numbers,
            spacing=header.spacing or pixels.spacing,
            channels=header.channels or pixels.channels,
        )

    def _refuse_half(self, first: dataset_pb2.FileHeader) -> None:
        other = _LABEL if first.role == _IMAGE else _IMAGE
        raise InvalidArgument(
            f"Item {first.item!r} has a {_NOUN[first.role]} file but no {_NOUN[other]} file; send both in a row.",
            "file.item",
        )
