"""Which way up a JPEG is meant to be seen: the orientation that cameras and phones write into its EXIF data.

File viewers and browsers turn such a picture before they show it, so that labels are drawn on the turned one.
"""

import struct

import numpy as np
import numpy.typing as npt

UPRIGHT = 1
"""The orientation of a picture whose first row is its top, as of one that states none."""
_TURNED = (5, 6, 7, 8)
"""Orientations whose rows become columns."""
_START = b"\xff\xd8"
_APP1 = 0xE1
_EXIF = b"Exif\0\0"
_TAG = 274
_SHORT = 3
_MAX_SEGMENTS = 1000


def jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG file, 1 to 8; `UPRIGHT` if it states none that is valid.

    As in browsers, broken EXIF data is no fault of the picture.
    """
    if not data.startswith(_START):
        return UPRIGHT
    try:
        return _orientation(_exif(data))
    except struct.error:
        return UPRIGHT


def turned_shape(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return height and width of a picture once it is upright."""
    return (width, height) if orientation in _TURNED else (height, width)


def turn_upright(array: npt.NDArray[np.generic], orientation: int) -> npt.NDArray[np.generic]:
    """Return a picture as its viewers show it.

    Args:
        array: Pixels as they are stored, axes YX or YXC.
        orientation: 1 to 8, the numbers of EXIF and TIFF.

    Returns:
        The same pixels, axes YX or YXC, in a block of memory of their own where anything has changed.
    """
    if orientation == UPRIGHT:
        return array
    if orientation in _TURNED:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _exif(data: bytes) -> bytes:
    """Return the TIFF structure of the first EXIF segment, b"" if there is none before the picture begins."""
    at = len(_START)
    for _ in range(_MAX_SEGMENTS):
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF or length < 2 or not (marker == 0xC4 or 0xDB <= marker <= 0xFE):
            break
        segment = bytes(data[at + 4 : at + 2 + length])
        if marker == _APP1 and segment.startswith(_EXIF):
            return segment[len(_EXIF) :]
        at += 2 + length
    return b""


def _orientation(exif: bytes) -> int:
    """Return the orientation in the first directory of a TIFF structure."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return UPRIGHT
    (directory,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, directory)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, at)
        if tag == _TAG:
            return value if kind == _SHORT and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
