"""Writing images and label images as OME-TIFF.

tifffile's own header holds a random identifier, so that the same pixels would give other bytes each time.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import tifffile

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_TYPES = {"float32": "float", "float64": "double"} | {
    f"{sign}int{bits}": "" for sign in ("", "u") for bits in (8, 16, 32)
}
"""Types of pixels that OME has, and its words for them where they are others."""


def has_type(dtype: np.dtype[Any]) -> bool:
    """Whether OME has a type of pixels."""
    return dtype.name in _TYPES


def encode_ome_tiff(label: npt.NDArray[np.integer[Any]], spacing: Sequence[float] = (), name: str = "labels") -> bytes:
    """Return a label image as a deterministic int32 OME-TIFF file.

    Args:
        label: Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n.
        spacing: Micrometres per pixel along each axis; empty if not known.
        name: Name of the image.
    """
    return _encode(label.astype(np.int32, copy=False), ("",), spacing, name)


def encode_ome_image(
    image: npt.NDArray[Any], *, stack: bool, channels: Sequence[str] = (), spacing: Sequence[float] = (), name: str
) -> bytes:
    """Return an image as a deterministic OME-TIFF file with the names of its channels.

    Args:
        image: Axes YX or YXC, of a stack ZYX or ZYXC; of a type that OME has (see `has_type`).
        stack: Whether it is a stack.
        channels: Names of the channels; empty if they have none.
        spacing: Micrometres per pixel along each axis other than C; empty if not known.
        name: Name of the image.
    """
    several = image.ndim > 2 + stack
    count = image.shape[-1] if several else 1
    planes = np.moveaxis(image, -1, -3) if several else image
    return _encode(planes, tuple(channels) or ("",) * count, spacing, name)


def _encode(planes: npt.NDArray[Any], channels: Sequence[str], spacing: Sequence[float], name: str) -> bytes:
    """Return planes as a file, axes YX, ZYX, CYX or ZCYX as there are channels."""
    height, width = planes.shape[-2:]
    pages = planes.size // (height * width)
    # Micrometres are the unit where none is named.
    sizes = zip("ZYX"[-len(spacing) :], spacing, strict=True) if spacing else ()
    physical = "".join(f' PhysicalSize{axis}="{float(size)!r}"' for axis, size in sizes)
    named = "".join(
        f'<Channel ID="Channel:0:{number}"{f" Name={quoteattr(channel)}" if channel else ""} SamplesPerPixel="1"/>'
        for number, channel in enumerate(channels)
    )
    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/ome.xsd">'
        f'<Image ID="Image:0" Name={quoteattr(name)}><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="{_TYPES[planes.dtype.name] or planes.dtype.name}" SizeX="{width}" SizeY="{height}" '
        f'SizeZ="{pages // len(channels)}" SizeC="{len(channels)}" SizeT="1"{physical}>'
        f'{named}<TiffData IFD="0" PlaneCount="{pages}"/></Pixels></Image></OME>'
    )
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        np.ascontiguousarray(planes),
        description=xml.encode("ascii", "xmlcharrefreplace"),
        metadata=None,
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": 6},
        software=False,
        datetime=False,
    )
    return buffer.getvalue()
