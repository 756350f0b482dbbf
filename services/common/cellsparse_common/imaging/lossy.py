"""Refusing label files whose numbers a lossy compression may have changed."""

import struct

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import tiff

_LOSSY_TIFF = {
    6: "JPEG",
    7: "JPEG",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34892: "JPEG",
    34887: "LERC",
    34934: "JPEG XR",
    22610: "JPEG XR",
    33007: "JPEG",
    50001: "WebP",
    34927: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_COMPRESSION_TAG = 259
_MAX_PAGES = 20_000
_REMEDY = "save labels without compression or with a lossless one, as integer TIFF (LZW, deflate) or PNG"


def refuse_lossy(data: bytes, field: str) -> None:
    """Refuse label files of formats and compressions that may change numbers.

    JPEG 2000, WebP and others can also be lossless, but the file does not say so in a way that can be relied on.

    Args:
        data: The file.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: It is such a file.
    """
    name = _format(data)
    if name:
        raise InvalidArgument(f"The {field} is a {name} file, whose compression changes numbers; {_REMEDY}.", field)
    if data[:4] not in tiff.SIGNATURES:
        return
    name = _tiff_compression(data)
    if name:
        raise InvalidArgument(
            f"The {field} is a TIFF file with {name} compression, which changes numbers; {_REMEDY}.", field
        )


def _format(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if data.startswith((b"\x00\x00\x00\x0cJXL ", b"\xff\x0a")):
        return "JPEG XL"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"heic", b"heix", b"mif1"):
        return "AVIF or HEIC"
    return "JPEG XR" if data.startswith(b"II\xbc") else ""


def _tiff_compression(data: bytes) -> str:
    """Return the first lossy compression of a TIFF file's images, "" if there is none or the file is broken."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    pointer, entries, entry, inline = (order + "Q", order + "Q", 20, 12) if big else (order + "I", order + "H", 12, 8)
    at = 8 if big else 4
    try:
        for _ in range(_MAX_PAGES):
            (offset,) = struct.unpack_from(pointer, data, at)
            if not offset:
                break
            (count,) = struct.unpack_from(entries, data, offset)
            first = offset + struct.calcsize(entries)
            at = first + count * entry
            if at > len(data):
                break
            for tag in range(first, at, entry):
                if struct.unpack_from(order + "H", data, tag) == (_COMPRESSION_TAG,):
                    (found,) = struct.unpack_from(order + "H", data, tag + inline)
                    if found in _LOSSY_TIFF:
                        return _LOSSY_TIFF[found]
    except struct.error:  # broken: refused with a better sentence later
        pass
    return ""
