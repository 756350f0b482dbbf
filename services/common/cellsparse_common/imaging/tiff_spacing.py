"""The size of a pixel, as ImageJ and OME write it into TIFF files.

The resolution in other TIFF files is ignored, because it is mostly meant for printing.
"""

import html
import math
import re
import unicodedata
from typing import Any, TypeAlias

Spacing: TypeAlias = tuple[float, ...]
"""Micrometres per pixel along z, y and x; empty if not known."""

_LENGTHS = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "\u00e5": 1e-4,  # the letter that stands for angstrom
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "\u03bcm": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "inch": 25_400.0,
    "inche": 25_400.0,
}
"""Micrometres in a unit, by its singular in lower case."""
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
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


def unit_micrometres(unit: str) -> float | None:
    """Return the micrometres in a unit of length as people and programs write it; None for pixels and the like.

    The sign for micro may be either of Unicode's two, "u", or ImageJ's escape; "micrometers", "Microns", "\u00b5ms" and
    "micrometre" are the same.
    """
    text = html.unescape(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), unit))
    # NFKC makes the micro sign the Greek letter, and the sign for angstrom the letter with a ring.
    text = unicodedata.normalize("NFKC", text).strip().strip(".").casefold().replace("metre", "meter")
    # What UTF-8 looks like to those who read it as Latin-1.
    text = text.removeprefix("\u00e2")
    found = _LENGTHS.get(text)
    return found if found is not None else _LENGTHS.get(text.removesuffix("s"))


def _imagej(file: Any) -> dict[str, float]:
    """Return the sizes of an ImageJ file that names a unit of length; z and y may have their own."""
    about = file.imagej_metadata or {}
    unit = str(about.get("unit", ""))
    scales = {axis: unit_micrometres(str(about.get(f"{axis.lower()}unit", unit))) for axis in "XYZ"}
    sizes = {}
    if "spacing" in about and scales["Z"] is not None:
        # The distance of planes is negative where they were taken from top to bottom.
        sizes["Z"] = abs(_number(about["spacing"])) * scales["Z"]
    elif "spacing" in about:
        sizes["Z"] = 0.0  # not known
    for axis, name in (("X", "XResolution"), ("Y", "YResolution")):
        tag, scale = file.pages[0].tags.get(name), scales[axis]
        if scale is not None and tag is not None and isinstance(tag.value, tuple) and tag.value[0]:
            sizes[axis] = abs(tag.value[1] / tag.value[0]) * scale  # the tag holds pixels per unit
    return sizes


def _ome(xml: str) -> dict[str, float]:
    """Return the sizes of the first image in an OME header; their unit is micrometres unless it is named."""
    pixels = _PIXELS.search(xml)
    attributes = dict(_SIZE.findall(pixels.group())) if pixels else {}
    sizes = {}
    for axis in "XYZ":
        if f"PhysicalSize{axis}" in attributes:
            scale = unit_micrometres(attributes.get(f"PhysicalSize{axis}Unit", "um"))
            # An unknown unit along one axis makes it unknown for all.
            sizes[axis] = abs(_number(attributes[f"PhysicalSize{axis}"])) * (scale or 0.0)
    return sizes


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0
