"""Zarr arrays and groups, versions 2 and 3, read through a function that returns the content of a key.

The zarr package does not fit into the limit on the size of our images, and it cannot refuse an array by its metadata
before reading it.
"""

import json
import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from cellsparse_common.imaging.zarr_chunks import Array, Get, ZarrError, decode_chunk, unpack

_MOST_CHUNKS = 200_000


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """Metadata of an array."""

    path: str
    """Key of its folder, with "/" at the end."""
    shape: tuple[int, ...]
    """Its shape."""
    chunk: tuple[int, ...]
    """Shape of its chunks."""
    dtype: np.dtype[Any]
    """Type of its values."""
    about: dict[str, Any]
    """All its metadata."""

    def key(self, at: tuple[int, ...]) -> str:
        """Return the key of a chunk."""
        if self.about["zarr_format"] == 2:
            return self.path + str(self.about.get("dimension_separator") or ".").join(map(str, at))
        encoding = self.about.get("chunk_key_encoding") or {}
        plain = encoding.get("name") == "v2"
        separator = (encoding.get("configuration") or {}).get("separator") or ("." if plain else "/")
        return (
            self.path
            + separator.join([] if plain else ["c"])
            + ("" if plain else separator)
            + separator.join(map(str, at))
        )


def read_json(get: Get, key: str) -> dict[str, Any] | None:
    """Return the JSON object of a key, None if there is none.

    Raises:
        ZarrError: It is no JSON object.
    """
    data = get(key)
    if data is None:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ZarrError(f"has a broken {key}") from error
    if not isinstance(found, dict):
        raise ZarrError(f"has a broken {key}")
    return found


def attributes(get: Get, path: str) -> dict[str, Any] | None:
    """Return a group's attributes, those of OME at the top; None if there is no group."""
    found = read_json(get, f"{path}zarr.json")
    if found is not None:
        inner = found.get("attributes") or {}
        ome = inner.get("ome") if isinstance(inner, dict) else None
        return ome if isinstance(ome, dict) else inner
    return read_json(get, f"{path}.zattrs")


def open_array(get: Get, path: str) -> ZarrArray:
    """Return the metadata of an array.

    Raises:
        ZarrError: There is none, or it is of an unknown kind.
    """
    about = read_json(get, f"{path}zarr.json") or read_json(get, f"{path}.zarray")
    if about is None or about.get("zarr_format") not in (2, 3):
        raise ZarrError(f"has no array {path.rstrip('/')!r} of Zarr 2 or 3")
    try:
        old = about["zarr_format"] == 2
        chunk = about["chunks"] if old else about["chunk_grid"]["configuration"]["chunk_shape"]
        shape = tuple(int(length) for length in about["shape"])
        dtype = np.dtype(about["dtype"] if old else about["data_type"])
        chunk = tuple(int(length) for length in chunk)
    except (KeyError, TypeError, ValueError) as error:
        raise ZarrError("has an array whose metadata are not understood") from error
    if dtype.kind not in "biuf" or len(chunk) != len(shape) or min(chunk, default=1) < 1 or min(shape, default=1) < 0:
        raise ZarrError(f"has an array of type {dtype}, shape {shape} and chunks {chunk}, which is not read")
    return ZarrArray(path=path, shape=shape, chunk=chunk, dtype=dtype.newbyteorder("="), about=about)


def read_array(get: Get, array: ZarrArray, index: dict[int, int], max_bytes: int) -> Array:
    """Return an array, or a part of it, chunk by chunk.

    Args:
        get: Reads a key.
        array: Its metadata.
        index: Axes of which one place only is wanted: number of the axis, place. These axes are left out.
        max_bytes: Most bytes of one chunk.

    Raises:
        ZarrError: A chunk cannot be read, or there are too many.
    """
    if math.prod(array.chunk) * array.dtype.itemsize > max_bytes:
        raise ZarrError(f"has chunks of {array.chunk}, which are too large")
    ranges = [
        range(index[axis] // step, index[axis] // step + 1) if axis in index else range(-(-length // step))
        for axis, (length, step) in enumerate(zip(array.shape, array.chunk, strict=True))
    ]
    if math.prod(map(len, ranges)) > _MOST_CHUNKS:
        raise ZarrError(f"has more than {_MOST_CHUNKS:,} chunks")
    kept = [axis for axis in range(len(array.shape)) if axis not in index]
    made = np.full([array.shape[axis] for axis in kept], _fill(array), array.dtype)
    for at in product(*ranges):
        data = get(array.key(at))
        if data is None:
            continue
        inside = tuple(
            index[axis] % step if axis in index else slice(0, min(step, array.shape[axis] - at[axis] * step))
            for axis, step in enumerate(array.chunk)
        )
        place = tuple(slice(at[axis] * array.chunk[axis], (at[axis] + 1) * array.chunk[axis]) for axis in kept)
        made[place] = _decode(data, array)[inside]
    return made


def _decode(data: bytes, array: ZarrArray) -> Array:
    about = array.about
    if about["zarr_format"] == 3:
        try:
            return decode_chunk(data, array.chunk, array.dtype, about["codecs"], _fill(array))
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise ZarrError("has an array whose codecs are not understood") from error
    if about.get("filters"):
        raise ZarrError("has an array with filters, which are not read")
    size = math.prod(array.chunk) * array.dtype.itemsize
    if about.get("compressor"):
        data = unpack(str(about["compressor"].get("id")), data, size)
    if len(data) != size:
        raise ZarrError(f"has a chunk of {len(data):,} bytes; its array says {size:,}")
    return np.frombuffer(data, about["dtype"]).reshape(array.chunk, order=about.get("order") or "C")


def _fill(array: ZarrArray) -> Any:
    """Return the value of what is not stored: a number, or a text such as "NaN"."""
    fill = array.about.get("fill_value")
    if fill is None:
        return 0
    try:
        return np.array(float(fill) if isinstance(fill, str) else fill, array.dtype)
    except (ValueError, OverflowError, TypeError) as error:
        raise ZarrError(f"has a fill value {str(fill)[:40]!r}, which its type {array.dtype} does not hold") from error
