"""Reading PNG files: header first, then pixels with the values they were stored with.

Pillow is loaded with the first pixels: clients, which only ever get TIFF files, do without it.
"""

import struct
from io import BytesIO

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.layout import Header

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, _RGB_ALPHA: 4}


def read_header(data: bytes, field: str) -> Header:
    """Return shape and type from the IHDR chunk; nothing is decoded.

    A palette file counts as one channel of indices here.

    Raises:
        InvalidArgument: The header is cut off or invalid.
    """
    width, height, bits, colour = _ihdr(data, field)
    channels = _CHANNELS[colour]
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    if channels == 1:
        return Header(shape=(height, width), axes="YX", dtype=dtype)
    return Header(shape=(height, width, channels), axes="YXS", dtype=dtype)


def decode(data: bytes, field: str, *, indices: bool) -> npt.NDArray[np.generic]:
    """Return the pixels, axes YX or YXC.

    Args:
        data: The file; its size must have been checked.
        field: Name of the request's field, for messages.
        indices: Whether a palette file gives its indices (for label images) or its colours.

    Raises:
        InvalidArgument: The file is truncated, broken or animated.
    """
    from PIL import PngImagePlugin

    from cellsparse_common.imaging.png_deep_colour import decode_deep_colour

    width, height, bits, colour = _ihdr(data, field)
    try:
        if bits == 16 and colour != _GRAY:  # Pillow would cut 16 bits of colour down to 8
            return decode_deep_colour(data, (height, width, _CHANNELS[colour]))
        with PngImagePlugin.PngImageFile(BytesIO(data)) as file:
            if getattr(file, "is_animated", False):
                raise InvalidArgument(f"The {field} is an animated PNG; export one frame.", field)
            file.load()
            if colour == _PALETTE and not indices:
                return np.asarray(file.convert("RGBA" if "transparency" in file.info else "RGB"))
            array = np.asarray(file)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(f"The {field} is a truncated or broken PNG file: {_brief(error)}", field) from error
    if colour == _GRAY and bits in (2, 4):  # Pillow spreads these over 0 to 255
        return np.asarray(array // (255 // (2**bits - 1)))
    return array


def _ihdr(data: bytes, field: str) -> tuple[int, int, int, int]:
    """Return (width, height, bits, colour type)."""
    if len(data) < 33:
        raise InvalidArgument(f"The {field} is a truncated PNG file of {len(data)} bytes.", field)
    length, kind, width, height, bits, colour = struct.unpack(">I4sIIBB", data[8:26])
    if length != 13 or kind != b"IHDR" or colour not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise InvalidArgument(f"The {field} is a broken PNG file: its header is not valid.", field)
    return width, height, bits, colour


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".") + "."
