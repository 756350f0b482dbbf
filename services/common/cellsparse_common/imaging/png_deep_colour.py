"""PNG files with 16 bits per colour channel, which Pillow would cut down to 8.

PNG filters treat each byte of a pixel separately. The first bytes of all pixels, together with the filter bytes, thus
form a grey 8-bit image, and so do the second ones. Pillow decodes each of these.

Such files are rare in microscopy, but QuPath sends them. No library reads them well enough: pypng is pure Python and
slow, OpenCV is large, and the decoder of imagecodecs (seen with 2026.3.6) releases a reference too many whenever a file
is broken, which ends the process after some thousand broken uploads.
"""

import struct
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import PngImagePlugin

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_FILTER = 4


def decode_deep_colour(data: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.uint16]:
    """Return the pixels, axes YXC.

    Args:
        data: The file, 16 bits per channel, not interlaced.
        shape: (height, width, channels) from its header, checked against the limits.

    Raises:
        ValueError: Truncated, broken or interlaced.
    """
    height, width, channels = shape
    if data[28]:
        raise ValueError("interlaced files with 16 bits per colour channel are not read; save without interlacing")
    lanes = 2 * channels
    size = height * (1 + width * lanes)
    raw = zlib.decompressobj().decompress(_pixel_data(data), size)
    if len(raw) != size:
        raise ValueError("image file is truncated")
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * lanes)
    if rows[:, 0].max() > _LARGEST_FILTER:
        raise ValueError(f"there is no filter {rows[:, 0].max()}")
    pixels = rows[:, 1:].reshape(height, width, lanes)
    decoded = np.empty((height, width, lanes), np.uint8)
    for lane in range(lanes):
        decoded[:, :, lane] = _decode_gray(np.column_stack([rows[:, 0], pixels[:, :, lane]]))
    return decoded.view(">u2").astype(np.uint16)


def _pixel_data(data: bytes) -> bytes:
    """Return the content of all IDAT chunks."""
    parts = []
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(kind + content)):
            raise ValueError(f"chunk {kind!r} is truncated or its checksum is wrong")
        if kind == b"acTL":
            raise ValueError("it is animated; export one frame")
        if kind == b"IDAT":
            parts.append(content)
        at += 12 + length
    return b"".join(parts)


def _decode_gray(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Undo the filters of 8-bit grey rows; the first column holds the filters."""
    height, width = rows.shape[0], rows.shape[1] - 1
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", ihdr), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b"")]
    file = _SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return np.asarray(PngImagePlugin.PngImageFile(BytesIO(file)))
