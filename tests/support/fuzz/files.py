"""Valid files of every format that the servers read, and mutations of them; the same seed gives the same bytes."""

import functools
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from support.tiny_dataset import blobs

from cellsparse_common.imaging.cellpose_seg import encode_seg
from cellsparse_common.imaging.coco import encode_coco
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.label_formats import LabelOutput, encode
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.imaging.vector_output import encode_geojson, encode_rois

SIZE = 32
IMAGE, LABEL = blobs(SIZE)
IMAGE_FILE, LABEL_FILE = encode_tiff(IMAGE), encode_labels(LABEL)
LIMITS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_TEXTS = ("", "\0", "../../x", "a" * 5000, "nan", "1e400", "\ud83d\ude00", "<f8", "|O", "blosc", "-1")


def valid_files() -> dict[str, bytes]:
    """Return one valid file of each kind by name, and the inputs of bug reports that once broke something."""
    return {**_images(), **_labels(), **_cases()}


def hostile_file(number: random.Random, name: str) -> bytes:
    """Return a mutation of the valid file of a name."""
    return hostile_bytes(number, valid_files_once()[name])


def hostile_bytes(number: random.Random, data: bytes) -> bytes:
    """Return a mutation of a file: of its bytes, or of what it means."""
    for _ in range(number.choice((1, 1, 1, 2, 3))):
        data = number.choice(_mutations(data))(number, data)
    return data


@functools.cache
def valid_files_once() -> dict[str, bytes]:
    """Return what `valid_files` returns, made once."""
    return valid_files()


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    photometric = "rgb" if array.ndim == 3 and array.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(file, array, **{"photometric": photometric, **options})
    return file.getvalue()


def _pillow(array: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def _numpy(save: Callable[..., None], *arrays: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **more)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """Return a zip of files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED  # as it is: zipfile would cut it at a \0
            archive.writestr(info, data)
    return file.getvalue()


def _images() -> dict[str, bytes]:
    gray = (IMAGE.astype(np.float64) / max(IMAGE.max(), 1) * 255).astype(np.uint8)
    deep = gray.astype(np.uint16) * 257
    colour = np.dstack([gray, gray[::-1], gray.T])
    stack = np.stack([deep] * 4)
    return {
        "tiff": _tiff(deep),
        "tiff-zlib-tiles": _tiff(deep, compression="zlib", predictor=True, tile=(16, 16)),
        "tiff-lzw-strips": _tiff(deep, compression="lzw", rowsperstrip=4),
        "tiff-zstd-big": _tiff(deep, bigtiff=True, compression="zstd"),
        "tiff-lzma": _tiff(deep, compression="lzma"),
        "tiff-packbits": _tiff(gray, compression="packbits"),
        "tiff-jpeg": _tiff(colour, compression="jpeg"),
        "tiff-float": _tiff(deep.astype(np.float32), compression="zlib", predictor=3),
        "tiff-bigendian": _tiff(deep, byteorder=">"),
        "tiff-imagej": _tiff(stack, imagej=True, metadata={"axes": "ZYX", "unit": "um", "spacing": 2.0}),
        "tiff-ome": _tiff(colour.transpose(2, 0, 1), ome=True, photometric="minisblack", metadata={"axes": "CYX"}),
        "png": _pillow(gray, "PNG"),
        "png-deep": _pillow(deep, "PNG"),
        "png-colour": _pillow(colour, "PNG"),
        "jpeg": _pillow(colour, "JPEG"),
        "jpeg-progressive": _pillow(colour, "JPEG", progressive=True),
        "zarr-0.5": encode("ome-zarr", LabelOutput(label=LABEL)),
        "zarr-0.4": encode("ome-zarr-0.4", LabelOutput(label=LABEL)),
    }


def _labels() -> dict[str, bytes]:
    rois = encode_rois(LABEL)
    with zipfile.ZipFile(io.BytesIO(rois)) as archive:
        roi = archive.read(archive.namelist()[0])
    return {
        "label-tiff": LABEL_FILE,
        "label-ome-tiff": encode("ome-tiff", LabelOutput(label=LABEL)),
        "label-png": _pillow(np.maximum(LABEL, 0).astype(np.uint8), "PNG"),
        "npy": _numpy(np.save, LABEL),
        "npy-object": _numpy(np.save, np.array({"masks": LABEL}, dtype=object)),
        "npz": _numpy(np.savez_compressed, masks=LABEL),
        "seg": encode_seg(LABEL, "image.tif"),
        "geojson": encode_geojson(LABEL, background=True),
        "coco": encode_coco(np.maximum(LABEL, 0), "image.tif"),
        "rois": rois,
        "roi": roi,
    }


def _cases() -> dict[str, bytes]:
    """Return what people's bug reports came with, in the size of our image."""
    ring = [[2, 2], [12, 2], [12, 12], [2, 12], [2, 2]]
    whole = [[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE], [0, 0]]

    def feature(points: list[list[int]], **about: Any) -> dict[str, Any]:
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [points]},
            "properties": {"objectType": "annotation", **about},
        }

    def collection(*features: dict[str, Any]) -> bytes:
        return json.dumps({"type": "FeatureCollection", "features": features}).encode()

    region = feature(whole, classification={"name": "Region*"})
    cell, text = feature(ring), feature(ring, classification='{"name": "Background"}')
    unlabelled = np.where(LABEL < 0, 65535, LABEL).astype(np.uint16)
    classes = np.where(LABEL > 0, 2, 1).astype(np.uint8)
    return {
        "case-tiff-bomb": _bomb(),
        "case-region-first": collection(region, cell),
        "case-region-last": collection(cell, region),
        "case-class-as-text": collection(cell, text),
        "case-zipped-geojson": zipped({"a.geojson": collection(cell)}),
        "case-classes": _tiff(classes),
        "case-minus1-as-uint16": _tiff(unlabelled),
        "case-jpeg-mask": _tiff(np.dstack([classes] * 3) * 100, compression="jpeg"),
        "case-thin-stack": _tiff(np.stack([IMAGE] * 3), photometric="minisblack"),
        "case-flat-outline": collection(feature([[2, 2], [12, 2], [2, 2]]), cell),
        "case-no-cell": encode_labels(np.zeros_like(LABEL)),
        "case-one-cell": encode_labels(np.where(LABEL == 1, 1, -1).astype(np.int32)),
    }


def _bomb() -> bytes:
    """Return a small TIFF file of 8192 x 8192 pixels of 4 x float64, all strips the same bytes."""
    block = zlib.compress(bytes(8192 * 4 * 8 * 64), 9)
    strips = 8192 // 64
    tags = [
        (256, 4, [8192]),
        (257, 4, [8192]),
        (258, 3, [64] * 4),
        (259, 3, [8]),
        (262, 3, [1]),
        (273, 4, [8] * strips),
        (277, 3, [4]),
        (278, 4, [64]),
        (279, 4, [len(block)] * strips),
        (339, 3, [3] * 4),
    ]
    place = 8 + len(block) + len(block) % 2
    data = bytearray(struct.pack("<2sHI", b"II", 42, place) + block + b"\0" * (len(block) % 2))
    directory, extra = bytearray(struct.pack("<H", len(tags))), bytearray()
    after = place + 2 + 12 * len(tags) + 4
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            value = struct.pack("<I", after + len(extra))
            extra += packed
        else:
            value = packed.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, len(values)) + value
    return bytes(data + directory + bytes(4) + extra)


def _mutations(data: bytes) -> list[Callable[[random.Random, bytes], bytes]]:
    """Return what may be done to a file: to its bytes, and to what it means."""
    plain = [_truncate, _flip, _limits, _limits, _splice, _repeat]
    if data.startswith(b"\x89PNG"):
        return [*plain, _png_header]
    if data.startswith(b"PK"):
        return [*plain, _member, _member, _member, _names]
    if data[:1] in b"{[" and data:
        return [_truncate, _flip, _leaf, _leaf, _leaf, _nest]
    return plain


def _truncate(number: random.Random, data: bytes) -> bytes:
    return data[: number.randrange(len(data) + 1)]


def _flip(number: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(number.randint(1, 8)):
        changed[_place(number, len(changed))] = number.randrange(256)
    return bytes(changed)


def _limits(number: random.Random, data: bytes) -> bytes:
    """Write numbers at the limits of their types."""
    changed = bytearray(data)
    for _ in range(number.randint(1, 3)):
        width, order = number.choice((1, 2, 4, 8)), number.choice(("little", "big"))
        value = (number.choice(LIMITS) + number.choice((0, 0, 1, -1))) % 2 ** (8 * width)
        at = _place(number, max(len(changed), 1))
        changed[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(changed)


def _splice(number: random.Random, data: bytes) -> bytes:
    other = valid_files_once()[number.choice(sorted(valid_files_once()))]
    return data[: number.randrange(len(data) + 1)] + other[number.randrange(len(other)) :]


def _repeat(number: random.Random, data: bytes) -> bytes:
    begin = number.randrange(len(data) + 1)
    return data[:begin] + data[begin : begin + number.randint(1, 64)] * number.choice((2, 100, 2000)) + data[begin:]


def _place(number: random.Random, size: int) -> int:
    """Return an index: mostly near the start, where headers are, or near the end, where directories are."""
    where = number.random()
    if where < 0.5:
        return number.randrange(min(size, 400))
    return number.randrange(max(size - 400, 0), size) if where < 0.75 else number.randrange(size)


def _png_header(number: random.Random, data: bytes) -> bytes:
    """Change the header and mend its checksum, so that the decoder gets to see it."""
    changed = bytearray(_limits(number, data[:29]) + data[29:])
    if len(changed) > 33:
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    return bytes(changed)


def _member(number: random.Random, data: bytes) -> bytes:
    """Mutate a file of a zip, and zip it again."""
    members = _members(data)
    if not members:
        return data
    name = number.choice(sorted(members))
    members[name] = number.choice(_mutations(members[name]))(number, members[name])
    return zipped(members)


def _names(number: random.Random, data: bytes) -> bytes:
    members = _members(data)
    bad = number.choice(("/etc/x", "../x", "a/../../x", "x" * 3000, "c:\\x", "\0", ".hidden", "a//b"))
    return zipped({(bad if at == 0 else name): content for at, (name, content) in enumerate(members.items())})


def _members(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()[:50]}
    except Exception:  # noqa: BLE001 - an earlier mutation broke it
        return {}


def _leaf(number: random.Random, data: bytes) -> bytes:
    """Put something else in the place of a value of a JSON document."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []

    def look(part: Any) -> None:
        if isinstance(part, dict | list):
            for key in part if isinstance(part, dict) else range(len(part)):
                places.append((part, key))
                look(part[key])

    look(document)
    for _ in range(number.randint(1, 3)):
        if places:
            part, key = number.choice(places)
            part[key] = hostile_value(number)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _nest(number: random.Random, data: bytes) -> bytes:
    depth = number.choice((50, 500, 20_000))
    return b"[" * depth + data + b"]" * depth


def hostile_value(number: random.Random) -> Any:
    """Return a value of JSON that is hardly ever right."""
    return number.choice(
        (
            None,
            True,
            -1,
            0,
            number.choice(LIMITS),
            -(2**63),
            2**64,
            10**30,
            1e308,
            float("nan"),
            float("-inf"),
            number.choice(_TEXTS),
            [],
            {},
            [[[[]]]],
            [number.choice(LIMITS)] * 3,
            {"type": "Polygon", "coordinates": [[[0, 0], [1e9, 0], [0, 1e9], [0, 0]]]},
        )
    )
