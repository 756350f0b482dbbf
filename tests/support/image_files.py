"""Files for tests of what images may be: small ones of many kinds, and headers that claim too much."""

import io
import struct
import time
import tracemalloc

import numpy as np
import tifffile
from PIL import Image as Pillow

from cellsparse_common.errors import CellsparseError
from cellsparse_common.imaging.images import decode_image

LIMIT = 2**26
RNG = np.random.default_rng(7)
PLANE = RNG.integers(0, 60_000, (37, 53)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (37, 53, 3)).astype(np.uint8)


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(array, mode=None, **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Pillow.Image) else Pillow.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def decode(data, max_pixels=LIMIT):
    return decode_image(data, max_pixels=max_pixels)


def header_only(width, height, *, strips=1, count=100, compression=8, bits=16):
    """A TIFF of a few bytes that claims any size."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 200),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, count),
    ]
    body = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (body + b"\0" * 4).ljust(1000, b"\0")


def peak(call):
    """(error raised, peak MiB that numpy and Python asked for, seconds of processor time)."""
    tracemalloc.start()
    start = time.process_time()
    try:
        call()
        error = None
    except CellsparseError as caught:
        error = caught
    seconds = time.process_time() - start
    _, bytes_ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return error, bytes_ / 2**20, seconds
