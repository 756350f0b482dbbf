"""The size of a JPEG stream from its header, read strictly enough to be trusted before decoding.

Whole-slide TIFF files hold JPEG strips, and a strip's own header may claim more pixels than the TIFF header. Comparing
the two bounds the memory of a decoder before it runs.
"""

import struct

_START = b"\xff\xd8"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; lossless ones need other decoders
_MAX_SEGMENTS = 1000


def jpeg_pixels(data: bytes) -> int:
    """Return height x width from the first frame header (see `jpeg_frame`)."""
    height, width, _ = jpeg_frame(data)
    return height * width


def jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return height, width and number of components from the first frame header.

    Markers must follow each other without gaps or fill bytes, so that no decoder can find another frame first.

    Raises:
        ValueError: There is no frame header of a kind that is read.
    """
    at = len(_START)
    if data.startswith(_START):
        for _ in range(_MAX_SEGMENTS):
            if len(data) < at + 10 or data[at] != 0xFF:
                break
            marker = data[at + 1]
            (length,) = struct.unpack_from(">H", data, at + 2)
            if marker in _FRAMES:
                height, width, components = struct.unpack_from(">HHB", data, at + 5)
                return int(height), int(width), int(components)
            if length < 2 or not (marker == 0xC4 or 0xDB <= marker <= 0xFE):
                break
            at += 2 + length
    raise ValueError("a strip is no baseline or progressive JPEG stream")
