"""Reading annotations from ImageJ: a zip of ROIs as the ROI manager saves it, or a single .roi file."""

import math
import zipfile
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import roifile

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.polygons import MAX_VERTICES, Ring, Shape
from cellsparse_common.imaging.quiet import quiet

ROI_SIGNATURE = b"Iout"

MAX_ROIS = 100_000
"""Most files in a zip."""
MAX_ROI_BYTES = 64 * 2**20
"""Most unpacked bytes of all of them."""

_OVAL_POINTS = 256


def read_shapes(data: bytes, field: str) -> list[Shape]:
    """Return the annotations of a file in their order.

    Args:
        data: A zip of .roi files or one .roi file. Polygons, freehand and traced outlines, rectangles, ovals and
            composites of them; one whose name begins with "background" (in any case) marks background.
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
        vertices += sum(len(ring) for polygon in shape.polygons for ring in polygon)
        if vertices > MAX_VERTICES:
            raise ResourceExhausted(
                f"The {field} has more than {MAX_VERTICES:,} vertices; simplify the outlines.", field
            )
        shapes.append(shape)
    if not shapes:
        raise InvalidArgument(f"The {field} is a zip without .roi files; save cells from ImageJ's ROI manager.", field)
    return shapes


def _members(data: bytes, field: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every ROI in a zip, within the limits."""
    if data.count(b"PK\x01\x02") > MAX_ROIS:  # counted before zipfile makes an object of each
        raise ResourceExhausted(f"The {field} is a zip of more than {MAX_ROIS:,} files.", field)
    left = MAX_ROI_BYTES
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for info in archive.infolist():
                name = info.filename.rsplit("/", 1)[-1]
                if not name.lower().endswith(".roi") or name.startswith("._"):
                    continue
                with archive.open(info) as member:
                    content = member.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise ResourceExhausted(f"The {field} unpacks to more than {MAX_ROI_BYTES:,} bytes.", field)
                yield name, content
    except CellsparseError:
        raise
    except Exception as error:  # zipfile and its codecs raise many kinds on broken files
        raise InvalidArgument(f"The {field} is a truncated or broken zip file: {error}.", field) from error


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
        kind, allowed = roi.roitype.name, "polygon, freehand, traced, rectangle and oval"
        raise InvalidArgument(f"In the {field}, {shown} is of type {kind}; allowed: {allowed}.", field)
    for ring in rings:
        if len(ring) < 3 or not np.isfinite(ring).all():
            raise InvalidArgument(
                f"In the {field}, {shown} has {len(ring)} vertices; an outline needs at least 3.", field
            )
    background = (roi.name or name).strip().casefold().startswith("background")
    return Shape(name=shown, background=background, polygons=[rings])


def _rings(roi: roifile.ImagejRoi) -> list[Ring] | None:
    """Return a ROI's outlines, None for kinds that enclose nothing (lines, points)."""
    kinds = roifile.ROI_TYPE
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
