"""Percentiles of more values than fit into memory, exact to the last bit."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Floats

_HALF = 16


def streamed_percentiles(parts: Callable[[], Iterable[Floats]], which: Sequence[float]) -> list[float]:
    """Return what `numpy.percentile` (linear interpolation) returns of all values together.

    Values are counted by the upper half of their bits, then those around the wanted places by the lower half. Memory is
    that of one part and of 65,536 counts.

    Args:
        parts: Gives all the values, the same at each call; finite float32 of any shapes, at least one value.
        which: Percentiles, 0 to 100.
    """
    upper = _counts(_keys(part) >> np.uint32(_HALF) for part in parts())
    ends = np.cumsum(upper)
    places = [(q / 100) * (int(ends[-1]) - 1) for q in which]
    wanted = sorted({rank for place in places for rank in _neighbours(place, int(ends[-1]))})
    buckets = sorted({int(np.searchsorted(ends, rank, side="right")) for rank in wanted})
    lower = {bucket: np.zeros(2**_HALF, np.int64) for bucket in buckets}
    for part in parts():
        keys = _keys(part)
        high = keys >> _HALF
        for bucket, counts in lower.items():
            inside = keys[high == bucket] & (2**_HALF - 1)
            counts += np.bincount(inside, minlength=2**_HALF)
    values = {}
    for rank in wanted:
        bucket = int(np.searchsorted(ends, rank, side="right"))
        before = int(ends[bucket] - upper[bucket])
        low = int(np.searchsorted(np.cumsum(lower[bucket]), rank - before, side="right"))
        values[rank] = _value(bucket << _HALF | low)
    return [_between(values, place, int(ends[-1])) for place in places]


def _neighbours(place: float, count: int) -> tuple[int, int]:
    below = int(np.floor(place))
    return below, min(below + 1, count - 1)


def _between(values: dict[int, np.float32], place: float, count: int) -> float:
    """Interpolate as numpy does: the difference in float32, the rest in float64, from the nearer end."""
    below, above = _neighbours(place, count)
    a, b, part = values[below], values[above], place - np.floor(place)
    difference = np.float64(np.float32(b - a))
    return float(np.float64(b) - difference * (1 - part) if part >= 0.5 else np.float64(a) + difference * part)


def _counts(keys: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    total = np.zeros(2**_HALF, np.int64)
    for each in keys:
        total += np.bincount(each, minlength=2**_HALF)
    return total


def _keys(part: Floats) -> npt.NDArray[np.uint32]:
    """Return whole numbers in the order of the values."""
    bits = (np.ascontiguousarray(part, np.float32).ravel() + np.float32(0)).view(np.uint32)  # -0 is 0
    keys: npt.NDArray[np.uint32] = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return keys


def _value(key: int) -> np.float32:
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return np.float32(np.array([bits], np.uint32).view(np.float32)[0])
