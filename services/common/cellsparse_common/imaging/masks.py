"""Telling label images from masks whose values are not cells: binary masks, classes, -1 saved without a sign.

A cell is one connected part; a class, or the foreground of a binary mask, has as many parts as there are cells. An
image with unlabelled pixels (-1) was made for sparse labels and is never taken for a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.disk_array import in_bands, release
from cellsparse_common.imaging.types import Labels, Mask

AS_BINARY = '`--label-kind binary` (in Python label_kind="binary", over HTTP kind=binary)'
"""How to say that a file is a binary mask, as users type it."""
_AS_OFFSET = '`--label-kind offset_by_one` (in Python label_kind="offset_by_one", over HTTP kind=offset_by_one)'
_UNSIGNED = {255: "uint8", 65535: "uint16", 2**32 - 1: "uint32", 2**64 - 1: "uint64"}
_MAX_WORK = 32
"""Most pixels looked at to count parts, in sizes of the image."""
_SPECK = 0.1
"""Parts smaller than this share of a value's largest one do not count: cells have stray pixels."""
_MOST_TO_FILL = 4_000_000
"""Most pixels looked at to find what a value encloses."""
_FEW = 3
"""Up to so many values, one of them with as many parts is enough to be a class."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The connected parts of one value."""

    value: int
    count: int
    large: int
    """Parts that are no specks."""
    pixels: int
    sides: int
    """How many sides of the image (of a stack, of its planes) it touches, 0 to 4."""


def neighbours(label: npt.NDArray[Any]) -> Mask:
    """Return what counts as connected: all pixels around one, 8 or 26."""
    return np.ones((3,) * label.ndim, dtype=bool)


def positive_values(label: npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
    """Return the values above 0, ascending, looking at some rows (or planes) at a time."""
    found = [np.unique(rows[rows > 0]) for rows in in_bands(label)]
    values: npt.NDArray[Any] = np.unique(np.concatenate([np.zeros(0, label.dtype), *found]))
    return values


def count_parts(label: Labels) -> list[Parts]:
    """Return the parts of every value above 0, ascending; not of all where that is very much work.

    Args:
        label: Axes YX or ZYX.
    """
    values = positive_values(label)
    if values.size == 0:
        return []
    if values[-1] > 4 * values.size + 1_000:  # find_objects makes a list as long as the largest value
        label = np.where(label > 0, np.searchsorted(values, label) + 1, 0).astype(np.int32)
        numbers = np.arange(1, values.size + 1)
    else:
        numbers = values
    boxes = ndimage.find_objects(label)
    release(label)
    left = _MAX_WORK * label.size
    found = []
    for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
        box = boxes[number - 1]
        inside = label[box] == number
        left -= inside.size
        if left < 0:
            break
        parts, count = ndimage.label(inside, structure=neighbours(label))
        sizes = np.bincount(parts.ravel())[1:]
        sides = sum(
            (box[axis].start == 0) + (box[axis].stop == label.shape[axis]) for axis in (label.ndim - 2, label.ndim - 1)
        )
        large = int((sizes >= _SPECK * sizes.max()).sum())
        found.append(Parts(value=value, count=count, large=large, pixels=int(sizes.sum()), sides=int(sides)))
    return found


def refuse_masks(label: Labels, field: str, *, classes_only: bool = False) -> list[str]:
    """Refuse values that are not cells, and return sentences on cells in several parts.

    Args:
        label: Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n.
        field: Name of the request's field, for messages.
        classes_only: Whether large values and images without background are beyond doubt.

    Raises:
        InvalidArgument: It is a binary mask, a mask of classes, or holds -1 saved without a sign.
    """
    if any((rows == -1).any() for rows in in_bands(label)):
        return []
    parts = count_parts(label)
    if not parts:
        return []
    why = _classes(parts) or _background_value(label, [each.value for each in parts if each.sides == 4])
    if not classes_only:
        why = _unsigned(parts) or _no_background(parts, any(bool((rows == 0).any()) for rows in in_bands(label))) or why
    if why:
        raise InvalidArgument(f"The {field} {why}", field)
    several = [each for each in parts if each.large > 1]
    if not several:
        return []
    shown = ", ".join(str(each.value) for each in several[:5]) + (", ..." if len(several) > 5 else "")
    return [f"{len(several):,} cell(s) have several separate parts: {shown}"]


def _unsigned(parts: Sequence[Parts]) -> str:
    """Return what is wrong if the largest value is -1 saved without a sign."""
    last, others = parts[-1], parts[:-1]
    if last.value not in _UNSIGNED or not (_is_far(parts) or (_has_gap(parts) and _unlike_cell(last, others))):
        return ""
    if sum(each.large for each in others) >= 2 * max(len(others), 1) or (not others and last.count > 1):
        return ""  # classes
    return (
        f"holds {last.value} in {last.pixels:,} pixels, which is what -1 (not labelled) becomes in "
        f"{_UNSIGNED[last.value]}: save it in a signed type (int16 or int32) with -1. If it is the foreground of a "
        f"mask, upload it with {AS_BINARY}."
    )


def _is_far(parts: Sequence[Parts]) -> bool:
    """Whether the largest value is so far from the next one that nobody numbers cells so."""
    return len(parts) == 1 or parts[-2].value < parts[-1].value / 2


def _has_gap(parts: Sequence[Parts]) -> bool:
    """Whether there are numbers between the largest value and the next one, as there are not between cells in a row."""
    last, before = parts[-1].value, parts[-2].value
    return before < last - 1 and (last == 255 or len(parts) < last / 2)


def _unlike_cell(last: Parts, others: Sequence[Parts]) -> bool:
    return last.count > 1 or last.pixels > 4 * max(each.pixels for each in others)


def _no_background(parts: Sequence[Parts], has_background: bool) -> str:
    """Return what is wrong if no pixel is 0 and one value lies around all others."""
    if has_background:
        return ""
    if len(parts) == 1:
        return (
            f"has the value {parts[0].value} in every pixel; a cell cannot be the whole image. Save background as 0 "
            "and what is not labelled as -1."
        )
    around = max(parts, key=lambda each: (each.sides, each.pixels))
    if around.sides < 4:
        return ""
    if len(parts) == 2:
        return (
            f"has the values {parts[0].value} and {parts[1].value} and no 0, and {around.value} lies around the other: "
            f"it looks like a mask of background and foreground. Upload it with {AS_BINARY}, which takes the lower of "
            "two values for background and makes each connected component of the other a cell."
        )
    remedy = f"save it as 0, or upload it with {_AS_OFFSET} if 1 is background and n + 1 cell n"
    if around.value != 1 or _classes(parts):
        remedy = f"save it as 0. If the others are classes and not cells, then upload it with {AS_BINARY}"
    return f"has no 0, and the value {around.value} lies around all others: it looks like background; {remedy}."


def _classes(parts: Sequence[Parts]) -> str:
    """Return what is wrong if the values have more parts than cells have."""
    if len(parts) == 1:
        if parts[0].count == 1:
            return ""
        return (
            f"has one cell, {parts[0].value}, in {parts[0].count} separate parts: it looks like a binary mask. Give "
            f"every cell its own number, or upload it with {AS_BINARY} to make each connected component a cell."
        )
    large = sum(each.large for each in parts)
    if large < 2 * len(parts) and not (len(parts) <= _FEW and max(each.large for each in parts) >= _FEW):
        return ""
    shown = ", ".join(str(each.value) for each in parts[:5]) + (", ..." if len(parts) > 5 else "")
    return (
        f"has {len(parts)} values ({shown}) in {large} separate parts: it looks like a mask of classes, not of cells. "
        f"Give every cell its own number, or upload it with {AS_BINARY} to make each connected component of all values "
        "above 0 a cell."
    )


def _background_value(label: Labels, values: Sequence[int]) -> str:
    """Return what is wrong if one of some values, which touch all sides of the image, lies around the rest."""
    around = _surrounding(label, values)
    if around is None:
        return ""
    return (
        f"has the value {around} on most of the image's border and around all that is inside: it looks like "
        f"background, as in an inverted mask. Save background as 0. If {around} is one cell, fill its holes."
    )


def _surrounding(label: Labels, values: Sequence[int]) -> int | None:
    """Return the value that most of the image's border has and that encloses other pixels, None if there is none.

    Of a stack, the borders of all planes count.
    """
    border = np.concatenate(
        [label[..., 0, :].ravel(), label[..., -1, :].ravel(), label[..., 0].ravel(), label[..., -1].ravel()]
    )
    found, pixels = np.unique(border, return_counts=True)
    most = int(found[pixels.argmax()])
    if most not in values or 2 * pixels.max() <= border.size:
        return None
    step = max(1, round((label.size / _MOST_TO_FILL) ** 0.5))  # of large images some of the pixels tell enough
    rest, _ = ndimage.label(label[..., ::step, ::step] != most)
    open_parts = [rest[..., 0, :], rest[..., -1, :], rest[..., 0], rest[..., -1]]
    at_border = np.unique(np.concatenate([each.ravel() for each in open_parts]))
    return most if np.setdiff1d(np.unique(rest), at_border).any() else None


def binary_cells(label: Labels, field: str) -> tuple[Labels, list[str]]:
    """Make each connected component of a binary mask a cell.

    Args:
        label: Axes YX or ZYX: 0 background, others foreground, -1 not labelled. Where neither 0 nor -1 is there, the
            lower of two values is background.
        field: Name of the request's field, for messages.

    Returns:
        The label image, and sentences on what was assumed.

    Raises:
        InvalidArgument: Nobody can tell which value is background, or whether one of them means not labelled.
    """
    values = np.unique(label)
    notes = []
    if values[0] > 0:
        label = _with_background(label, [int(value) for value in values], field)
        notes = [f"the value {values[0]} was taken for background, as no pixel is 0"]
    elif 1 in values and int(values[-1]) in _UNSIGNED:
        raise InvalidArgument(
            f"The {field} holds 1 and {values[-1]}, which is what -1 (not labelled) becomes in "
            f"{_UNSIGNED[int(values[-1])]}: save it in a signed type with -1, or all foreground as 1.",
            field,
        )
    cells, count = ndimage.label(label > 0, structure=neighbours(label))
    if values[0] >= 0 and _surrounding(cells, range(1, count + 1)) is not None:
        raise InvalidArgument(
            f"The {field} has one connected part on most of the image's border and around the rest: either it is "
            "inverted, or its cells touch each other and cannot be told apart. Save background as 0 and cells as 1, or "
            "give every cell its own number.",
            field,
        )
    return np.where(label > 0, cells.astype(np.int32), label), notes


def _with_background(label: Labels, values: list[int], field: str) -> Labels:
    """Return a mask without 0 whose lower value became 0."""
    if len(values) != 2:
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise InvalidArgument(
            f"The {field} has no background: no pixel is 0, and its values are {shown}. Save background as 0.", field
        )
    low, high = count_parts(label)
    if values[1] in _UNSIGNED or (high.sides == 4 and low.sides < 4):
        raise InvalidArgument(
            f"The {field} has the values {values[0]} and {values[1]} and no 0, and which of them is background is not "
            "clear. Save background as 0, foreground as 1, and what is not labelled as -1 in a signed type.",
            field,
        )
    return np.where(label == values[1], label, 0).astype(np.int32)
