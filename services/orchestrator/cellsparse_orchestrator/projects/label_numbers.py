"""Label numbers as they travel: zlib-compressed little-endian uint32; 0 not labelled, 1 background, n + 1 cell n."""

import zlib
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.types import Labels

Numbers: TypeAlias = npt.NDArray[np.uint32]
"""Label numbers, axes YX."""

KEEP = 0xFFFFFFFF
"""In a patch: what is there stays."""
NEW = 0x80000000
"""In a patch: NEW + i is the i-th new cell."""
BACKGROUND = 1
FIRST_CELL = 2
_LEVEL = 1


def deflate(numbers: Numbers) -> bytes:
    """Return label numbers compressed."""
    return zlib.compress(np.ascontiguousarray(numbers, "<u4").data, _LEVEL)


def inflate(data: bytes, height: int, width: int, field: str = "data") -> Numbers:
    """Return compressed label numbers; a new array.

    No more is decompressed than the size allows, so that a small message cannot take much memory.

    Raises:
        InvalidArgument: It is not zlib's format, or holds another number of pixels.
    """
    wanted = height * width * 4
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(data, wanted + 1)
    except zlib.error as error:
        raise InvalidArgument(f"{field} is not compressed with zlib: {error}.", field) from None
    # There was room for one byte more, so zlib has read to the end of the stream if that is where its pixels end.
    if len(raw) != wanted or not unpacker.eof or unpacker.unused_data:
        raise InvalidArgument(
            f"{field} does not hold {width} x {height} label numbers of 4 bytes = {wanted:,} bytes.", field
        )
    return np.frombuffer(raw, "<u4").reshape(height, width).astype(np.uint32)


def from_labels(labels: Labels) -> Numbers:
    """Return the numbers of labels (-1 not labelled, 0 background, n cell n)."""
    numbers: Numbers = (labels.astype(np.int64) + 1).astype(np.uint32)
    return numbers


def to_labels(numbers: Numbers) -> Labels:
    """Return the labels (-1 not labelled, 0 background, n cell n) of numbers."""
    labels: Labels = (numbers.astype(np.int64) - 1).astype(np.int32)
    return labels
