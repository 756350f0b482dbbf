"""Writing label images as OME-TIFF."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import tifffile

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def encode_ome_tiff(label: npt.NDArray[np.integer[Any]], spacing: Sequence[float] = (), name: str = "labels") -> bytes:
    """Return a label image as a deterministic int32 OME-TIFF file.

    tifffile's own header holds a random identifier, so that the same labels would give other bytes each time.

    Args:
        label: Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n.
        spacing: Micrometres per pixel along each axis; empty if not known.
        name: Name of the image.
    """
    planes = label.shape[0] if label.ndim == 3 else 1
    height, width = label.shape[-2:]
    # Micrometres are the unit where none is named.
    sizes = zip("ZYX"[-label.ndim :], spacing, strict=True) if spacing else ()
    physical = "".join(f' PhysicalSize{axis}="{float(size)!r}"' for axis, size in sizes)
    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/ome.xsd">'
        f'<Image ID="Image:0" Name={quoteattr(name)}><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="int32" '
        f'SizeX="{width}" SizeY="{height}" SizeZ="{planes}" SizeC="1" SizeT="1"{physical}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="{planes}"/>'
        "</Pixels></Image></OME>"
    )
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        np.ascontiguousarray(label.astype(np.int32, copy=False)),
        description=xml.encode("ascii", "xmlcharrefreplace"),
        metadata=None,
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": 6},
        software=False,
        datetime=False,
    )
    return buffer.getvalue()
