"""Tell ONNX files from others by their outer structure, without reading the weights and without an ONNX library.

Nothing of the file is executed or unpacked. Whether the graph can run is for ONNX Runtime to say.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cellsparse_common.errors import InvalidArgument

MAX_BYTES = 2**31 - 1
"""Largest ONNX file: a protobuf message ends there."""
_FOREIGN_ENDINGS = (".pth", ".pt", ".ckpt", ".pkl", ".pickle", ".zip")
_FOREIGN_BEGINNINGS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# Field numbers of ModelProto, GraphProto and TensorProto in ONNX's schema.
_IR_VERSION, _GRAPH, _OPSETS, _INITIALIZER, _DATA_LOCATION, _EXTERNAL = 1, 7, 8, 5, 14, 1
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 300_000
"""Most fields that are looked at: a graph has a few thousand, a forged file could have a billion."""


class _NoMessage(Exception):
    pass


def check_onnx(path: Path, name: str) -> None:
    """Check that a file is an ONNX model that holds its weights itself.

    Args:
        path: The file.
        name: What to call it in messages; its ending counts as well.

    Raises:
        InvalidArgument: It is something else, and why.
    """
    try:
        with path.open("rb") as file:
            _check(file, name)
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise InvalidArgument(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _check(file: BinaryIO, name: str) -> None:
    beginning = file.read(2)
    if name.lower().endswith(_FOREIGN_ENDINGS) or beginning in _FOREIGN_BEGINNINGS:
        raise InvalidArgument(
            f"{name} is a PyTorch, pickle or zip file, which may run any code when it is read: export it to ONNX with "
            "samexporter (`python -m samexporter.export_encoder` and `python -m samexporter.export_decoder`)."
        )
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise InvalidArgument(f"{name} has {size} bytes; an ONNX file has at most {MAX_BYTES}.")
    scan = _Scan(file)
    try:
        found, external = scan.model(size)
    except _NoMessage:
        found, external = set(), False
    if external:
        raise InvalidArgument(
            f"{name} keeps its weights in other files; save the model as one ONNX file with all its weights."
        )
    if not {_IR_VERSION, _GRAPH, _OPSETS} <= found:
        raise InvalidArgument(f"{name} is no ONNX file: it lacks the version, the graph or the operator sets of one.")


class _Scan:
    """Goes through the fields of protobuf messages in a file, of which it reads numbers and lengths only."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MOST_FIELDS

    def model(self, size: int) -> tuple[set[int], bool]:
        """Return the numbers of a model's fields, and whether a weight of its graph lies in another file."""
        found, external = set(), False
        for number, kind, begin, end in self._fields(0, size):
            found.add(number)
            if number == _GRAPH and kind == _LENGTH:
                external |= self._has_external_weights(begin, end)
        return found, external

    def _has_external_weights(self, begin: int, end: int) -> bool:
        for number, kind, tensor_begin, tensor_end in self._fields(begin, end):
            if number != _INITIALIZER or kind != _LENGTH:
                continue
            for inner, inner_kind, value, value_end in self._fields(tensor_begin, tensor_end):
                if inner == _DATA_LOCATION and inner_kind == _VARINT:
                    self._file.seek(value)
                    if self._varint(value_end) == _EXTERNAL:
                        return True
        return False

    def _fields(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, begin and end of the value of each field of a message."""
        place = begin
        while place < end:
            self._left -= 1
            self._file.seek(place)
            tag = self._varint(end)
            number, kind = tag >> 3, tag & 7
            start = self._file.tell()
            if kind == _VARINT:
                self._varint(end)
                stop = self._file.tell()
            elif kind == _LENGTH:
                length = self._varint(end)
                start = self._file.tell()
                stop = start + length
            elif kind in (_FIXED64, _FIXED32):
                stop = start + (8 if kind == _FIXED64 else 4)
            else:
                raise _NoMessage
            if not number or stop > end or self._left < 0:
                raise _NoMessage
            yield number, kind, start, stop
            place = stop

    def _varint(self, end: int) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte or self._file.tell() > end:
                raise _NoMessage
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise _NoMessage
