"""Arrays too large for memory, in a file that has no name."""

import mmap
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BAND_BYTES = 2**24
"""Bytes of an array that are looked at together."""
DISK_BYTES = 128 * 2**20
"""Size from which arrays of a large image are kept on disk."""


def disk_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros whose memory is a file: the system writes it to disk where memory is short.

    The file is in the folder for temporary files and is gone when the array is.

    Raises:
        OSError: The disk is full, or there is no such folder.
    """
    with tempfile.TemporaryFile(prefix="cellsparse-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros, on disk if it is large."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return disk_array(shape, dtype) if size >= DISK_BYTES else np.zeros(shape, dtype)


def in_bands(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield some rows (or planes) of an array after the other, letting go of those on disk that were looked at."""
    step = max(1, BAND_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]
        release(array)


def release(array: npt.NDArray[Any]) -> None:
    """Let go of the memory of an array on disk; its values stay. Does nothing to other arrays."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.base if isinstance(base, np.ndarray) else getattr(base, "obj", None)
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
