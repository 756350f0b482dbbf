"""Writing label images as OME-Zarr in a zip file, versions 0.4 (Zarr 2) and 0.5 (Zarr 3).

The zarr package would do it, but it does not fit into the limit on the size of our images. Labels need little of it:
chunks of one type, compressed with zlib.
"""

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 512
_LARGEST_LEVEL = 1024
"""Largest height and width of the smallest level."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)

Labels32 = npt.NDArray[np.int32]


def encode_ome_zarr(
    label: npt.NDArray[np.integer[Any]], spacing: Sequence[float] = (), name: str = "labels", *, version: str = "0.5"
) -> bytes:
    """Return a zip file with an OME-Zarr label image at its top; the same labels always give the same bytes.

    Args:
        label: Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n. int32 in the file.
        spacing: Micrometres per pixel along each axis; empty if not known.
        name: Name of the image.
        version: "0.4" or "0.5" of OME-Zarr.
    """
    layout = _ZARR_2 if version == "0.4" else _ZARR_3
    levels = list(_levels(label.astype(np.int32, copy=False)))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # chunks are compressed already
        for path, content in layout.group(_attributes(levels, spacing, name, version)):
            archive.writestr(zipfile.ZipInfo(path, _EARLIEST), content)
        for number, level in enumerate(levels):
            for path, content in layout.array(level):
                archive.writestr(zipfile.ZipInfo(f"{number}/{path}", _EARLIEST), content)
    return buffer.getvalue()


def _levels(label: Labels32) -> Iterator[Labels32]:
    """Yield the image and every smaller version of it; a pixel of a smaller one is one of four, never a mixture."""
    yield label
    while max(label.shape[-2:]) > _LARGEST_LEVEL:
        label = label[..., ::2, ::2]
        yield label


def _attributes(levels: list[Labels32], spacing: Sequence[float], name: str, version: str) -> dict[str, Any]:
    axes = "zyx"[-levels[0].ndim :]
    unit = {"unit": "micrometer"} if spacing else {}
    scale = [float(size) for size in spacing] or [1.0] * len(axes)
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*scale[:-2], scale[-2] * 2**number, scale[-1] * 2**number]}
            ],
        }
        for number in range(len(levels))
    ]
    image: dict[str, Any] = {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in axes],
        "datasets": datasets,
    }
    if version == "0.4":
        return {"multiscales": [{"version": version, **image}], "image-label": {"version": version}}
    return {"ome": {"version": version, "multiscales": [image], "image-label": {}}}


class _Zarr2:
    def group(self, attributes: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        yield ".zgroup", _text({"zarr_format": 2})
        yield ".zattrs", _text(attributes)

    def array(self, level: Labels32) -> Iterator[tuple[str, bytes]]:
        about = {
            "zarr_format": 2,
            "shape": level.shape,
            "chunks": _chunk(level),
            "dtype": "<i4",
            "compressor": {"id": "zlib", "level": 6},
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "dimension_separator": "/",
        }
        yield ".zarray", _text(about)
        for key, chunk in _chunks(level):
            yield key, zlib.compress(chunk, 6)


class _Zarr3:
    def group(self, attributes: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        yield "zarr.json", _text({"zarr_format": 3, "node_type": "group", "attributes": attributes})

    def array(self, level: Labels32) -> Iterator[tuple[str, bytes]]:
        about = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": level.shape,
            "data_type": "int32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": _chunk(level)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "gzip", "configuration": {"level": 6}},
            ],
            "attributes": {},
            "dimension_names": list("zyx"[-level.ndim :]),
        }
        yield "zarr.json", _text(about)
        for key, chunk in _chunks(level):
            yield f"c/{key}", gzip.compress(chunk, 6, mtime=0)


_ZARR_2, _ZARR_3 = _Zarr2(), _Zarr3()


def _chunk(level: Labels32) -> tuple[int, ...]:
    return (1,) * (level.ndim - 2) + tuple(min(CHUNK, size) for size in level.shape[-2:])


def _chunks(level: Labels32) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the bytes of every chunk that is not all background; those at the border are filled up."""
    size = _chunk(level)
    for at in product(*(range(-(-length // step)) for length, step in zip(level.shape, size, strict=True))):
        part = level[tuple(slice(place * step, (place + 1) * step) for place, step in zip(at, size, strict=True))]
        if part.any():
            whole = np.zeros(size, "<i4")
            whole[tuple(slice(0, length) for length in part.shape)] = part
            yield "/".join(map(str, at)), whole.tobytes()


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
