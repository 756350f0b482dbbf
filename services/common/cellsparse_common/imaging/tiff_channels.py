"""Names of channels, as OME and ImageJ write them into TIFF files, and those of colour images."""

import html
import re
from typing import Any

from cellsparse_common.channels import ALPHA, RGB

_FIRST_IMAGE = re.compile(r"<(?:\w+:)?Pixels\b.*?(?:</(?:\w+:)?Pixels>|$)", re.DOTALL)
_CHANNEL = re.compile(r"<(?:\w+:)?Channel\b[^>]*>")
_NAME = re.compile(r"\bName\s*=\s*(?:\"([^\"]{0,200})\"|'([^']{0,200})')")
_POSITION = re.compile(r"^(?:[cztCZT]:\s*\d+/\d+\s*)+(?:-\s*)?")
"""What Bio-Formats puts before the name in a label of ImageJ's: "c:1/2 z:3/9 - DAPI"."""
_COLOURS = ("RGB", "YCBCR")


def read_channel_names(file: Any, series: Any, channels: int) -> tuple[str, ...]:
    """Return the names of the channels of an open `tifffile.TiffFile`, in their order; empty where it names none.

    Args:
        file: The file.
        series: Its image.
        channels: Number of channels.
    """
    if file.is_ome:
        names = _ome(file.ome_metadata or "")
    elif file.is_imagej:
        names = _imagej(file.imagej_metadata or {}, channels)
    else:
        names = []
    if len(names) == channels and any(names):
        return tuple(names)
    if "S" in series.axes and getattr(series.keyframe.photometric, "name", "") in _COLOURS and channels in (3, 4):
        return (*RGB, ALPHA)[:channels]
    return ()


def _ome(xml: str) -> list[str]:
    """Return the channels' names of the first image; empty text for one without."""
    first = _FIRST_IMAGE.search(xml)
    found = [_NAME.search(tag) for tag in _CHANNEL.findall(first.group() if first else "")]
    return [html.unescape(match.group(1) or match.group(2) or "") if match else "" for match in found]


def _imagej(about: dict[str, Any], channels: int) -> list[str]:
    """Return the labels of the first plane's channels; ImageJ stores one label for each channel of each plane."""
    labels = about.get("Labels")
    if not isinstance(labels, list | tuple) or len(labels) < channels:
        return []
    return [_POSITION.sub("", str(label).splitlines()[0]) if str(label) else "" for label in labels[:channels]]
