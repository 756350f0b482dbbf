"""Reading annotations from ImageJ: a zip of ROIs as the ROI manager saves it, or a single .roi file."""

import math
import re
from collections.abc import Iterator

import numpy as np
import roifile

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.quiet import quiet
from cellsparse_common.imaging.shapes import MAX_VERTICES, Ring, Shape
from cellsparse_common.imaging.zip_members import MAX_MEMBERS, read_members

ROI_SIGNATURE = b"Iout"

MAX_ROI_BYTES = 64 * 2**20
"""Most unpacked bytes of all ROIs in a zip."""
MAX_ROIS = MAX_MEMBERS
"""Most files in a zip."""

_OVAL_POINTS = 256
_DRAWINGS = (roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.IMAGE)
"""Stored as rectangles, but they mark nothing."""


def read_shapes(data: bytes, field: str) -> list[Shape]:
    """Return the annotations of a file in their order.

    Args:
        data: A zip of .roi files or one .roi file. Polygons, freehand and traced outlines, rectangles, ovals and
            composites of them; one whose name begins with "background" (in any case) marks background.
            Lines and points come back with the reason why they are no labels.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: Not such a file; the sentence names the ROI.
        ResourceExhausted: Too many ROIs, bytes or vertices.
    """
    members = [("ROI", data)] if data.startswith(ROI_SIGNATURE) else _members(data, field)
    vertices = 0
    shapes = []
    for name, content in members:
        shape = _shape(content, name, field)
        vertices += shape.vertices
        if vertices > MAX_VERTICES:
            raise ResourceExhausted(
                f"The {field} has more than {MAX_VERTICES:,} vertices; simplify the outlines.", field
            )
        shapes.append(shape)
    if not shapes:
        raise InvalidArgument(f"The {field} is a zip without .roi files; save cells from ImageJ's ROI manager.", field)
    return shapes


def _members(data: bytes, field: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every ROI in a zip."""
    yield from read_members(data, (".roi",), MAX_ROI_BYTES, field)


def _shape(content: bytes, name: str, field: str) -> Shape:
    """Return one ROI's shape."""
    shown = f"ROI {name[:100]!r}"
    try:
        with quiet("roifile"):
            roi = roifile.ImagejRoi.frombytes(content)
            rings = _rings(roi)
    except Exception as error:  # roifile unpacks bytes and raises whatever that gives
        raise InvalidArgument(f"In the {field}, {shown} is truncated or broken: {error}.", field) from error
    if rings is None:
        kind, allowed = _kind(roi), "polygon, freehand, traced, rectangle and oval"
        return Shape(name=shown, skipped=f"is of type {kind}; allowed: {allowed}")
    if not all(np.isfinite(ring).all() for ring in rings):
        raise InvalidArgument(f"In the {field}, {shown} has coordinates that are not finite pixel numbers.", field)
    outlines = [ring for ring in rings if len(ring) >= 3]
    if not outlines:
        fewest = max((len(ring) for ring in rings), default=0)
        return Shape(name=shown, skipped=f"has {fewest} vertices; an outline needs at least 3")
    background = (roi.name or name).strip().casefold().startswith("background")
    slice_ = roi.z_position if roi.z_position > 0 else roi.position
    return Shape(
        name=shown,
        background=background,
        polygons=[outlines],
        plane=slice_ - 1 if slice_ > 0 else None,
        time=max(roi.t_position - 1, 0),
        number=None if background else _number(roi.name or name, slice_),
    )


def _number(name: str, slice_: int) -> int | None:
    """Return the number that a ROI is called: "7", or "7-3" on slice 3, as files in a zip must differ; None if none."""
    found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", name.removesuffix(".roi"))
    return int(found[1]) if found and (found[2] is None or int(found[2]) == slice_) else None


def _kind(roi: roifile.ImagejRoi) -> str:
    return str(roi.subtype.name if roi.subtype in _DRAWINGS else roi.roitype.name)


def _rings(roi: roifile.ImagejRoi) -> list[Ring] | None:
    """Return a ROI's outlines, None for kinds that enclose nothing (lines, points, texts)."""
    kinds = roifile.ROI_TYPE
    if roi.subtype in _DRAWINGS:
        return None
    if roi.multi_coordinates is not None or roi.roitype in (kinds.POLYGON, kinds.FREEHAND, kinds.TRACED):
        rings = roi.coordinates(multi=True)
    elif roi.roitype in (kinds.RECT, kinds.OVAL):
        rings = [_box_or_oval(roi)]
    else:
        return None
    return [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings]


def _box_or_oval(roi: roifile.ImagejRoi) -> Ring:
    """Return the outline of a rectangle or an oval from its bounding box."""
    left, top, width, height = roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
    if roi.roitype == roifile.ROI_TYPE.RECT:
        unit = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=np.float64)
    else:
        angle = np.arange(_OVAL_POINTS) * (2 * math.pi / _OVAL_POINTS)
        unit = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(np.array([left, top]) + unit * np.array([width, height]))
