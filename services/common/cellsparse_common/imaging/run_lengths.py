"""Masks as COCO writes them: lengths of runs that are outside and inside in turn, column by column.

The compressed form is a text of 5 bits per character, in which each length after the third is the difference to the
one before the last.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Indices

_FIRST = 48
_MORE = 0x20
_SIGN = 0x10
_LONGEST = 7
"""Characters of one number: 35 bits."""


def compress(counts: list[int]) -> str:
    """Return lengths of runs as text."""
    text = bytearray()
    for at, count in enumerate(counts):
        left = count - counts[at - 2] if at > 2 else count
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != (-1 if bits & _SIGN else 0)
            text.append(_FIRST + (bits | _MORE if more else bits))
    return text.decode("ascii")


def decompress(text: str) -> list[int]:
    """Return the lengths of runs in a text.

    Raises:
        ValueError: It is no such text.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _FIRST
        if not 0 <= bits < 64 or shift >= 5 * _LONGEST:
            raise ValueError("its counts are no run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & _MORE:
            value -= (bits & _SIGN) << (shift - 4)  # the highest bit is the sign
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("its counts are cut off")
    return counts


def inside(counts: Any, pixels: int) -> Indices:
    """Return the places of the pixels inside, in an image that is read column by column.

    Args:
        counts: A list of numbers or the compressed text.
        pixels: How many the image has.

    Raises:
        ValueError: They are no run lengths of such an image.
    """
    numbers = decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(numbers, list) or not all(type(count) is int and 0 <= count <= pixels for count in numbers):
        raise ValueError("its counts are no run lengths")
    ends = np.cumsum(np.array(numbers, np.int64))
    if len(ends) == 0 or ends[-1] != pixels:
        raise ValueError(f"its run lengths cover {int(ends[-1]) if len(ends) else 0:,} of {pixels:,} pixels")
    starts, lengths = ends[:-1:2], np.array(numbers[1::2], np.int64)
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def runs_by_value(label: npt.NDArray[np.integer[Any]]) -> Iterator[tuple[int, Indices, Indices]]:
    """Yield every value of an image with the starts and ends of its runs, by rising value.

    Args:
        label: Axes YX.
    """
    flat = np.ascontiguousarray(label.T).ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.concatenate([starts[1:], [flat.size]])
    order = np.argsort(flat[starts], kind="stable")
    starts, ends, values = starts[order], ends[order], flat[starts][order]
    cuts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])).tolist()
    for begin, end in pairwise([*cuts, len(values)]):
        yield int(values[begin]), starts[begin:end], ends[begin:end]


def counts_of(starts: Indices, ends: Indices, pixels: int) -> list[int]:
    """Return lengths of runs outside and inside in turn, the first outside."""
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = [int(count) for count in np.diff(np.concatenate([[0], edges, [pixels]]))]
    return counts if counts[-1] else counts[:-1]  # as pycocotools writes them
