"""The size of a pixel, as ImageJ and OME write it into TIFF files.

The resolution in other TIFF files is ignored, because it is mostly meant for printing.
"""

import math
import re
from typing import Any, TypeAlias

Spacing: TypeAlias = tuple[float, ...]
"""Micrometres per pixel along z, y and x; empty if not known."""

_MICROMETRES = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "\u00b5m": 1.0,  # the micro sign
    "\u03bcm": 1.0,  # the Greek letter
    "\\u00b5m": 1.0,  # the micro sign as ImageJ spells it
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
}
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_SIZE = re.compile(r"\b(PhysicalSize[XYZ](?:Unit)?)\s*=\s*[\"']([^\"']{0,40})[\"']")
_LARGEST = 1e5
"""Largest plausible size, micrometres."""


def read_spacing(file: Any) -> Spacing:
    """Return the size of a pixel of an open `tifffile.TiffFile`, to 6 digits.

    The size along z is that along x where the file names none, as in files of one plane.
    """
    sizes = _imagej(file) if file.is_imagej else _ome(file.ome_metadata) if file.is_ome else {}
    x, y = sizes.get("X", 0.0), sizes.get("Y", 0.0)
    found = (sizes.get("Z", x), y, x)
    if not all(0 < size <= _LARGEST for size in found):
        return ()
    return tuple(float(f"{size:.6g}") for size in found)  # TIFF holds fractions of whole numbers


def _imagej(file: Any) -> dict[str, float]:
    """Return the sizes of an ImageJ file that names a unit of length."""
    about = file.imagej_metadata or {}
    scale = _MICROMETRES.get(str(about.get("unit", "")).strip().lower())
    if scale is None:
        return {}
    sizes = {"Z": _number(about["spacing"]) * scale} if "spacing" in about else {}
    for axis, name in (("X", "XResolution"), ("Y", "YResolution")):
        tag = file.pages[0].tags.get(name)
        if tag is not None and isinstance(tag.value, tuple) and tag.value[0]:
            sizes[axis] = tag.value[1] / tag.value[0] * scale  # the tag holds pixels per unit
    return sizes


def _ome(xml: str) -> dict[str, float]:
    """Return the sizes of the first image in an OME header; their unit is micrometres unless it is named."""
    pixels = _PIXELS.search(xml)
    attributes = dict(_SIZE.findall(pixels.group())) if pixels else {}
    sizes = {}
    for axis in "XYZ":
        scale = _MICROMETRES.get(attributes.get(f"PhysicalSize{axis}Unit", "um").lower())
        if scale is not None and f"PhysicalSize{axis}" in attributes:
            sizes[axis] = _number(attributes[f"PhysicalSize{axis}"]) * scale
    return sizes


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0
