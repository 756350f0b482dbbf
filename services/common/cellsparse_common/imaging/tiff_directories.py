"""Walking a TIFF file's image directories before tifffile does, whose own walk has no bound.

A directory is a list of tags, and a tag's values may lie anywhere in the file. A file of a few kilobytes may therefore
name the same values from many directories and so fill memory without a pixel. Here everything is counted and nothing
read.
"""

import struct
from dataclasses import dataclass

from cellsparse_common.errors import InvalidArgument, ResourceExhausted

MAX_PAGES = 20_000
"""Most image directories walked in one file; tifffile stores (Y, X, 2) arrays as Y of them."""
MAX_TAGS = 2**20
"""Most tags of all directories together."""
MAX_NUMBERS = 2**21
"""Most numbers in all tags together: offsets and lengths of strips, above all. Each takes 40 bytes once it is read."""

_MOST_LEVELS = 64
"""Most smaller copies (levels of a pyramid) of one image."""
_SUB_DIRECTORIES = 330
_COMPRESSION = 259
_UNKNOWN = 0
"""Stands for a compression that is not written as one number of 16 bits."""
_SHORT = 3
_TEXT = (1, 2, 6, 7)
"""Types of one byte."""
_WIDTHS = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 8, 10: 8, 12: 8, 16: 8, 17: 8, 18: 8}
"""Bytes of a number of each of the other types."""


@dataclass(frozen=True, kw_only=True)
class _Format:
    """How a file writes numbers: as TIFF or as BigTIFF, in either byte order."""

    pointer: struct.Struct
    """An offset."""
    length: struct.Struct
    """The number of tags of a directory."""
    tag: struct.Struct
    """A tag: its code, the type and number of its values, and these or where they are."""
    order: str


def check_directories(data: bytes, field: str) -> frozenset[int]:
    """Walk the chain of directories and those below them.

    Returns:
        The compressions of all images; 1 is none.

    Raises:
        InvalidArgument: The chain is empty, cut off, circular or longer than MAX_PAGES.
        ResourceExhausted: The tags of all directories hold too much.
    """
    form, first = _format(data)
    tags, numbers, text = 0, 0, 0
    seen: set[int] = set()
    below: list[int] = []
    compressions: set[int] = set()
    offset = _number(data, first, form.pointer, field)
    chained = True
    while offset or below or not seen:
        if not offset and below:
            offset, chained = below.pop(), False
        if offset in seen or len(seen) >= MAX_PAGES:
            raise InvalidArgument(
                f"The {field} is a TIFF file with more than {MAX_PAGES:,} images, or a circle.", field
            )
        seen.add(offset)
        start = offset + form.length.size
        count = _number(data, offset, form.length, field) if offset else 0
        end = start + count * form.tag.size
        if offset == 0 or end > len(data):
            raise _truncated(data, field)
        tags += count
        if tags <= MAX_TAGS:
            for at, (code, kind, values, value) in enumerate(form.tag.iter_unpack(memoryview(data)[start:end])):
                text += values if kind in _TEXT else 0
                numbers += values if kind in _WIDTHS else 0
                if code == _COMPRESSION:
                    compressions.add(_short(value, form) if kind == _SHORT and values == 1 else _UNKNOWN)
                if code == _SUB_DIRECTORIES:
                    below += _below(data, start + at * form.tag.size, form, field)
        if tags > MAX_TAGS or numbers > MAX_NUMBERS or text > 2 * len(data) + 2**20:
            raise ResourceExhausted(
                f"The {field} is a TIFF file of {len(data):,} bytes whose tags hold more than {MAX_NUMBERS:,} numbers "
                "or more text than the file; save it with larger strips or tiles.",
                field,
            )
        # Smaller copies may be listed and also lead from one to the next; tifffile only reads the list.
        offset = _number(data, end, form.pointer, field) if chained else 0
    return frozenset(compressions)


def _format(data: bytes) -> tuple[_Format, int]:
    """Return how the file writes numbers, and where the offset of its first directory is."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    pointer, length, tag = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    form = _Format(
        pointer=struct.Struct(order + pointer),
        length=struct.Struct(order + length),
        tag=struct.Struct(order + tag),
        order=order,
    )
    return form, 8 if big else 4


def _short(value: int, form: _Format) -> int:
    """Return the 16 bits at the beginning of a tag's value."""
    return value & 0xFFFF if form.order == "<" else value >> (8 * form.pointer.size - 16)


def _below(data: bytes, at: int, form: _Format, field: str) -> list[int]:
    """Return where the directories are that a tag lists."""
    _, kind, count, value = form.tag.unpack_from(data, at)
    width = _WIDTHS.get(kind, 0)
    if count > _MOST_LEVELS:
        raise InvalidArgument(
            f"The {field} is a TIFF file with an image of {count:,} smaller copies; allowed: at most {_MOST_LEVELS}.",
            field,
        )
    if width not in (4, 8):
        return []
    inside = count * width <= form.pointer.size  # so few that they are in the tag itself
    place = at + form.tag.size - form.pointer.size if inside else value
    letter = struct.Struct(form.order + ("I" if width == 4 else "Q"))
    found = [_number(data, place + number * width, letter, field) for number in range(count)]
    return [each for each in found if each]


def _number(data: bytes, at: int, form: struct.Struct, field: str) -> int:
    if at + form.size > len(data):
        raise _truncated(data, field)
    return int(form.unpack_from(data, at)[0])


def _truncated(data: bytes, field: str) -> InvalidArgument:
    return InvalidArgument(f"The {field} is a truncated TIFF file of {len(data):,} bytes.", field)
