"""Which axis of a decoded array is which: the one rule for images that come as (Y, X), (Y, X, C) or (C, Y, X)."""

import math
from dataclasses import dataclass

import numpy as np

from cellsparse_common.errors import InvalidArgument, ResourceExhausted

MAX_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about its image before any pixel is decoded."""

    shape: tuple[int, ...]
    """Length of each axis, without axes of length 1 other than Y and X."""
    axes: str
    """One letter per axis as in tifffile: Y, X, C or S (samples) channels, Z depth, T time, others unknown."""
    dtype: np.dtype[np.generic]
    """Type of a pixel's value."""


def channel_axis(header: Header, field: str) -> int | None:
    """Return the position of the channel axis, None for a plain (Y, X) plane.

    A file that names its axes (ImageJ, OME, RGB samples) is believed. Where it does not, the smaller one of the first
    and last axis holds the channels, the last one if they are equal: (3, 256, 256) and (256, 256, 3) are both three
    channels of 256 x 256 pixels.

    Args:
        header: Shape and axes of the file.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: It is not one 2D plane of 1 to 4 channels, or it has no pixel.
    """
    shape = header.shape
    if 0 in shape:
        raise InvalidArgument(f"The {field} has no pixels (shape {shape}); at least 1 x 1 is needed.", field)
    if len(shape) == 2:
        return None
    if len(shape) != 3:
        raise InvalidArgument(
            f"The {field} has {len(shape)} axes (shape {shape}, axes {header.axes}); one 2D plane is allowed: "
            "(Y, X), (Y, X, C) or (C, Y, X).",
            field,
        )
    for position, axis in enumerate(header.axes):
        if axis in "ZT":
            kind = "3D stack" if axis == "Z" else "time series"
            raise InvalidArgument(
                f"The {field} is a {kind} of {shape[position]} planes (shape {shape}, axes {header.axes}); "
                "export one 2D plane.",
                field,
            )
    named = [position for position, axis in enumerate(header.axes) if axis in "CS"]
    position = named[0] if len(named) == 1 else (2 if shape[2] <= shape[0] else 0)
    if shape[position] > MAX_CHANNELS:
        raise InvalidArgument(
            f"The {field} has {shape[position]} channels (shape {shape}); allowed: 1 to {MAX_CHANNELS}.", field
        )
    return position


def check_size(header: Header, max_pixels: int, field: str) -> None:
    """Refuse an image that is too large, from its header alone.

    Args:
        header: Shape and axes of the file.
        max_pixels: Most pixels (height x width) allowed.
        field: Name of the request's field, for messages.

    Raises:
        ResourceExhausted: The two longest axes span more than `max_pixels`, or all axes more than 4 times as many.
    """
    largest = sorted(header.shape)[-2:]
    if math.prod(largest) > max_pixels:
        spelled = " x ".join(str(length) for length in header.shape)
        raise ResourceExhausted(
            f"The {field} has {spelled} pixels = {math.prod(largest):,} in a plane; allowed: at most {max_pixels:,}.",
            field,
        )


def check_dtype(header: Header, field: str) -> None:
    """Refuse value types that are no intensities: complex numbers and the like.

    Raises:
        InvalidArgument: Not a boolean, integer or floating point type.
    """
    if header.dtype.kind not in "buif":
        raise InvalidArgument(
            f"The {field} has values of type {header.dtype}; allowed: integers, floating point numbers and booleans.",
            field,
        )
