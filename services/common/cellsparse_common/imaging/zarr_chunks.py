"""Decoding chunks of Zarr arrays, versions 2 and 3. A chunk never unpacks to more bytes than its array says."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Get = Callable[[str], bytes | None]
"""Returns the content of a key, None if there is none."""
Array = npt.NDArray[np.generic]


class ZarrError(ValueError):
    """It cannot be read; the text completes a sentence about the file."""


def unpack(name: str, data: bytes, size: int) -> bytes:
    """Return the bytes that a codec packed.

    Args:
        name: Of the codec: zlib, gzip, zstd, blosc or crc32c.
        data: The packed bytes.
        size: Most bytes that may come out.

    Raises:
        ZarrError: The codec is another one, the data are broken, or there are more.
    """
    if name == "crc32c":
        return data[:-4]
    try:
        if name in ("zlib", "gzip"):
            stream = zlib.decompressobj(wbits=47)  # either header
            found = stream.decompress(data, size + 1)
        elif name in ("zstd", "blosc"):
            import imagecodecs

            decode = imagecodecs.zstd_decode if name == "zstd" else imagecodecs.blosc_decode
            found = bytes(decode(data, out=bytearray(size)))
        else:
            raise ZarrError(f"is packed with {name[:40]!r}; allowed: blosc, gzip, zlib and zstd")
    except ImportError as error:
        raise ZarrError(f"is packed with {name}, for which the package imagecodecs is needed") from error
    except ZarrError:
        raise
    except Exception as error:
        raise ZarrError("has a broken chunk") from error
    if len(found) > size:
        raise ZarrError("has a chunk of more bytes than its array says")
    return found


def decode_chunk(
    data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], codecs: list[dict[str, Any]], fill: Any = 0
) -> Array:
    """Return a chunk of a Zarr 3 array.

    Args:
        data: The chunk.
        shape: Its shape.
        dtype: Type of its values, native byte order.
        codecs: As the array's metadata list them, in the order of writing.
        fill: Value of what a shard leaves out.

    Raises:
        ZarrError: It cannot be decoded.
    """
    size = math.prod(shape) * dtype.itemsize
    order = list(range(len(shape)))
    stored = dtype
    packed: list[str] = []
    for codec in codecs:
        name, settings = str(codec.get("name")), codec.get("configuration") or {}
        if name == "transpose":
            order = [order[int(axis)] for axis in settings["order"]]
        elif name == "bytes":
            stored = dtype.newbyteorder(">" if settings.get("endian") == "big" else "<")
        elif name == "sharding_indexed":
            inner_shape = tuple(shape[axis] for axis in order)
            return _decode_shard(data, inner_shape, dtype, settings, fill).transpose(np.argsort(order))
        else:
            packed.append(name)
    for name in reversed(packed):
        data = unpack(name, data, size + 64)
    if len(data) != size:
        raise ZarrError(f"has a chunk of {len(data):,} bytes; its array says {size:,}")
    array: Array = np.frombuffer(data, stored).reshape([shape[axis] for axis in order])
    return array.transpose(np.argsort(order))


def _decode_shard(
    data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], settings: dict[str, Any], fill: Any
) -> Array:
    """Return a shard: chunks in one object, with an index of their places at its end or beginning."""
    inner = tuple(int(length) for length in settings["chunk_shape"])
    if len(inner) != len(shape) or any(whole % part for whole, part in zip(shape, inner, strict=True)):
        raise ZarrError("has shards that its chunks do not fill")
    grid = tuple(whole // part for whole, part in zip(shape, inner, strict=True))
    extra = 4 * sum(codec.get("name") == "crc32c" for codec in settings["index_codecs"])
    length = math.prod(grid) * 16 + extra
    raw = data[:length] if settings.get("index_location") == "start" else data[-length:]
    index = decode_chunk(raw, (*grid, 2), np.dtype(np.uint64), settings["index_codecs"])
    made = np.full(shape, fill, dtype)
    for at in np.ndindex(grid):
        offset, count = (int(number) for number in index[at])
        if offset == 2**64 - 1:
            continue
        if offset + count > len(data):
            raise ZarrError("has a shard that is cut off")
        place = tuple(slice(i * part, (i + 1) * part) for i, part in zip(at, inner, strict=True))
        made[place] = decode_chunk(data[offset : offset + count], inner, dtype, settings["codecs"], fill)
    return made
