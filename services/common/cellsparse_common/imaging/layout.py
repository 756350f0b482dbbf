"""Which axis of a decoded array is which: a 2D plane or a stack of planes, of 1 to 16 channels, in any usual order."""

import math
from dataclasses import dataclass

import numpy as np

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.errors import InvalidArgument, ResourceExhausted

STACK_HINT = "If they are the planes of a stack, give its axes: ZYX (--axes ZYX)."
MOST_UNNAMED_CHANNELS = 4
"""Length up to which an axis without a name is taken for channels (see `name_axes`)."""
VALUES_PER_PIXEL = 4
"""Values that an image from outside may have for each pixel allowed: more channels are for smaller images."""
UNCLEAR_LENGTHS = (3, 4)
"""Lengths of a first axis without a name that are as often channels as planes (see `refuse_unclear`)."""
FEWEST_UNNAMED_PLANES = 10
"""Length from which an axis without a name is taken for planes rather than channels (see `name_axes`)."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """Properties of an image that its file states, before any pixel is decoded."""

    shape: tuple[int, ...]
    """Length of each axis, without axes of length 1 other than Y and X."""
    axes: str
    """One letter per axis as in tifffile: Y, X, C or S (samples) channels, Z planes, T time, others unknown."""
    dtype: np.dtype[np.generic]
    """Type of a pixel's value."""
    spacing: tuple[float, ...] = ()
    """Micrometres per pixel along z, y and x; empty if the file does not state them."""
    channels: tuple[str, ...] = ()
    """Names of the channels in their order; empty if the file does not state them."""

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels take once they are decoded."""
        return math.prod(self.shape) * self.dtype.itemsize


def name_axes(header: Header, field: str, *, given: str = "", stacks: bool = False) -> str:
    """Return what each axis of a file is.

    Axes given by the caller take precedence, then those named in the file (ImageJ, OME, RGB samples). Otherwise the
    shorter one of the first and last axis holds the channels, the last one if they are equal: (3, 256, 256) and
    (256, 256, 3) are both three channels of 256 x 256 pixels; of files, `refuse_unclear` refuses the former before.
    `FEWEST_UNNAMED_PLANES` or more cannot be channels: (30, 256, 256) is a stack of 30 planes. A number between that
    and `MOST_UNNAMED_CHANNELS` could be either and is refused.

    Args:
        header: Shape and axes of the file.
        field: Name of the request's field, for messages.
        given: The axes as the caller names them, of the letters Z, Y, X and C; "" if not.
        stacks: Whether a stack of planes is allowed.

    Returns:
        One letter per axis of `header.shape`: Y and X, and Z and C where there are planes and channels.

    Raises:
        InvalidArgument: It is not one 2D plane (or stack) of 1 to 16 channels, or it has no pixel.
    """
    shape = header.shape
    if 0 in shape:
        raise InvalidArgument(f"The {field} has no pixels (shape {shape}); at least 1 x 1 is needed.", field)
    if given and len(given) != len(shape):
        raise InvalidArgument(
            f"The {field} has {len(shape)} axes longer than 1 (shape {shape}, axes {header.axes}), which cannot be "
            f"{given}.",
            field,
        )
    axes = given or _own_names(header, field, stacks)
    if "Z" in axes and not stacks:
        planes = shape[axes.index("Z")]
        raise InvalidArgument(
            f"The {field} is a 3D stack of {planes} planes (shape {shape}, axes {header.axes}); export one 2D plane.",
            field,
        )
    if "C" in axes:
        named = bool(given) or any(axis in header.axes for axis in "CS")
        most = MAX_CHANNELS if named else MOST_UNNAMED_CHANNELS
        if shape[axes.index("C")] > most:
            raise InvalidArgument(
                f"The {field} has {shape[axes.index('C')]} channels (shape {shape}); allowed: 1 to {most}"
                f"{'.' if named else _unnamed_hint(stacks)}",
                field,
            )
    return axes


def refuse_unclear(header: Header, field: str, *, stacks: bool) -> None:
    """Refuse a file of three or four layers that does not say whether they are channels or planes.

    Args:
        header: Shape and axes of the file.
        field: Name of the request's field, for messages.
        stacks: Whether a stack of planes is allowed, and its axes can be given.

    Raises:
        InvalidArgument: The first of its three axes has such a length and no name.
    """
    shape, named = header.shape, set(header.axes) & set("CSZT")
    if len(shape) != 3 or named or shape[0] not in UNCLEAR_LENGTHS or shape[0] >= shape[2]:
        return
    remedy = "Save it as an ImageJ or OME-TIFF file, which names its axes."
    if stacks:
        remedy = "Give its axes: CYX (--axes CYX) for channels, ZYX (--axes ZYX) for planes."
    raise InvalidArgument(
        f"The {field} has {shape[0]} layers of {shape[1]} x {shape[2]} pixels (axes {header.axes}) and does not say "
        f"whether they are channels or the planes of a stack. {remedy}",
        field,
    )


def _unnamed_hint(stacks: bool) -> str:
    """Return what to do about an axis that could hold channels or planes."""
    planes = ", and of a stack, such as ZYX (--axes ZYX)" if stacks else ""
    return f" without a name. Give the axes of up to {MAX_CHANNELS} channels, such as CYX{planes}."


def _own_names(header: Header, field: str, stacks: bool) -> str:
    """Return the axes named in the file, or those that its shape suggests."""
    shape, axes = header.shape, header.axes.replace("S", "C")
    if len(shape) == 2:
        return "YX"
    if "T" in axes:
        remedy = "export one time point"
        if stacks:
            remedy = (
                "choose a time point with time (--time), or give the axes if they are planes, such as ZYX (--axes ZYX)"
            )
        raise InvalidArgument(
            f"The {field} is a time series of {shape[axes.index('T')]} planes (shape {shape}, axes {header.axes}); "
            f"{remedy}.",
            field,
        )
    if len(shape) == 3:
        if sorted(axes) in (sorted("ZYX"), sorted("CYX")):
            return axes
        position = 2 if shape[2] <= shape[0] else 0
        if shape[position] >= FEWEST_UNNAMED_PLANES:
            return "ZYX"
        return "YXC" if position == 2 else "CYX"
    if len(shape) == 4 and sorted(axes) == sorted("ZCYX"):
        return axes
    if len(shape) == 4 and axes[1:] == "YXC":  # pages of RGB samples: the pages are no channels, so they are planes
        return "ZYXC"
    allowed = "one 2D plane is allowed: (Y, X), (Y, X, C) or (C, Y, X)"
    if stacks:
        allowed = "allowed: (Y, X), (Y, X, C), (C, Y, X), (Z, Y, X), and with axes given (Z, Y, X, C) and (Z, C, Y, X)"
    raise InvalidArgument(
        f"The {field} has {len(shape)} axes (shape {shape}, axes {header.axes}); {allowed}.",
        field,
    )


def check_size(header: Header, max_pixels: int, field: str, *, values_per_pixel: int = VALUES_PER_PIXEL) -> None:
    """Refuse an image that is too large, from its header alone.

    Args:
        header: Shape and axes of the file.
        max_pixels: Most pixels allowed: height x width, of a stack x planes.
        field: Name of the request's field, for messages.
        values_per_pixel: Most values, channels included, for each of these pixels.

    Raises:
        ResourceExhausted: The two longest axes span more than `max_pixels`, or all axes more than
            `values_per_pixel` times as many.
    """
    spelled = " x ".join(str(length) for length in header.shape)
    plane, whole = math.prod(sorted(header.shape)[-2:]), math.prod(header.shape)
    if plane > max_pixels:
        raise ResourceExhausted(
            f"The {field} has {spelled} pixels = {plane:,} in a plane; allowed: at most {max_pixels:,}.", field
        )
    if whole > values_per_pixel * max_pixels:
        raise _too_many(spelled, whole, values_per_pixel * max_pixels, field)


def check_voxels(header: Header, axes: str, max_pixels: int, field: str) -> None:
    """Refuse a stack that is too large, once its axes are known.

    Args:
        header: Shape of the file.
        axes: What `name_axes` found.
        max_pixels: Most voxels (planes x height x width) allowed.
        field: Name of the request's field, for messages.

    Raises:
        ResourceExhausted: It has more.
    """
    sides = [length for length, axis in zip(header.shape, axes, strict=True) if axis != "C"]
    if math.prod(sides) > max_pixels:
        raise _too_many(" x ".join(map(str, sides)), math.prod(sides), max_pixels, field)


def check_bytes(header: Header, max_bytes: int, field: str) -> None:
    """Refuse an image that takes too much memory, from its header alone.

    Args:
        header: Shape and type of the file.
        max_bytes: Most bytes of all its pixels and channels.
        field: Name of the request's field, for messages.

    Raises:
        ResourceExhausted: It takes more.
    """
    if header.nbytes > max_bytes:
        spelled = " x ".join(str(length) for length in header.shape)
        raise ResourceExhausted(
            f"The {field} has {spelled} values of {header.dtype} = {header.nbytes:,} bytes; allowed: at most "
            f"{max_bytes:,} bytes. Save it with fewer bits or channels, or cut it into parts.",
            field,
        )


def _too_many(spelled: str, voxels: int, max_pixels: int, field: str) -> ResourceExhausted:
    return ResourceExhausted(f"The {field} has {spelled} = {voxels:,} values; allowed: at most {max_pixels:,}.", field)


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
