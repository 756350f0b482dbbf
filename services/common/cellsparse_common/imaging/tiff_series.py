"""Which image of a TIFF file that holds several, and which time point of a series.

Smaller copies of an image (pyramids) are not counted as images of their own, whether their file says what they are or
not.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument

_SHOWN = 8


def choose_series(file: Any, number: int | None, field: str) -> Any:
    """Return the chosen image of an open `tifffile.TiffFile`.

    Args:
        file: The file.
        number: Which, from 0; None if the file must hold one only.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: There is no such image, or there are several and none is chosen.
    """
    found = list(file.series)
    if number is not None:
        if not 0 <= number < len(found):
            raise InvalidArgument(
                f"The {field} holds {len(found)} images, so that series {number} does not exist: {_listed(found)}.",
                "series",
            )
        return found[number]
    whole = [series for at, series in enumerate(found) if not any(_is_copy(series, other) for other in found[:at])]
    if len(whole) != 1:
        raise InvalidArgument(
            f"The {field} holds {len(found)} images of different kinds ({_listed(found)}); choose one by its number "
            "with series (--series), or export one.",
            field,
        )
    return whole[0]


def _is_copy(small: Any, large: Any) -> bool:
    """Whether a series is a smaller version of another: less high and wide by the same factor, all else equal."""
    if small.axes != large.axes or small.dtype != large.dtype or not {"Y", "X"} <= set(small.axes):
        return False
    factors = []
    for axis, length, of_large in zip(small.axes, small.shape, large.shape, strict=True):
        if axis in "YX":
            factors.append((of_large / length, 1 / length))
        elif length != of_large:
            return False
    (down, slack), (across, more) = factors
    # Levels are rounded to whole pixels.
    return bool(down > 1.5 and abs(down - across) <= max(down, across) * (slack + more))


def _listed(found: list[Any]) -> str:
    shown = ", ".join(
        f"{number}: {f'{series.name[:40]} ' if series.name else ''}{' x '.join(map(str, series.shape))} {series.axes}"
        for number, series in enumerate(found[:_SHOWN])
    )
    return shown + (", ..." if len(found) > _SHOWN else "")


def times_of(series: Any) -> int:
    """Return the number of time points of a series, 1 if it has no such axis."""
    return int(series.shape[series.axes.index("T")]) if "T" in series.axes else 1


def without_time(series: Any, time: int, field: str) -> tuple[tuple[int, ...], str]:
    """Return the shape and the axes of one time point.

    Raises:
        InvalidArgument: There is no such time point.
    """
    if not 0 <= time < times_of(series):
        raise InvalidArgument(
            f"The {field} has {times_of(series)} time point(s), so that time {time} does not exist (shape "
            f"{tuple(series.shape)}, axes {series.axes}).",
            "time",
        )
    kept = [at for at, axis in enumerate(series.axes) if axis != "T"]
    return tuple(int(series.shape[at]) for at in kept), "".join(series.axes[at] for at in kept)


def read_time(file: Any, series: Any, time: int) -> npt.NDArray[np.generic]:
    """Return the pixels of one time point, from its pages alone where the file has a page for each plane."""
    if "T" not in series.axes:
        return np.asarray(series.asarray(maxworkers=1))
    at = series.axes.index("T")
    paged = len(series.shape) - len([size for size in series.keyframe.shape if size >= 1])
    lead = tuple(int(size) for size in series.shape[:paged])
    if at >= paged or math.prod(lead) != len(series.pages) or series.shape[paged:] != series.keyframe.shape:
        whole: npt.NDArray[np.generic] = np.asarray(series.asarray(maxworkers=1))
        return np.asarray(whole[(slice(None),) * at + (time,)])
    pages = np.arange(math.prod(lead)).reshape(lead).take(time, axis=at)
    array: npt.NDArray[np.generic] = np.asarray(file.asarray(key=pages.ravel().tolist(), series=series, maxworkers=1))
    shaped: npt.NDArray[np.generic] = np.reshape(array, (*pages.shape, *series.keyframe.shape))
    return shaped
