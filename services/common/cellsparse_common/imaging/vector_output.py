"""Label images as outlines for other tools: GeoJSON for QuPath, a zip of ROIs for ImageJ.

Both follow pixel edges, in pixels with 0, 0 at the corner of the first pixel, and are read back pixel for pixel by
`vector_labels.decode_vector_labels`, which leaves what is not drawn unlabelled: with `background` the background is
drawn, too. The same label image always gives the same bytes. In a stack each plane has its own outlines, at most one
per cell.
"""

import json
import zipfile
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import roifile

from cellsparse_common.imaging.outlines import Loop, Outline, plane_outlines

_LARGEST_COORDINATE = 2**15 - 1
"""ImageJ's integer coordinates are 16 bits wide; beyond, only composites (32-bit floats) are exact."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of all files in a zip, so that its bytes depend on the labels only."""
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
_BACKGROUND = "background"


def encode_geojson(label: npt.NDArray[np.integer[Any]], *, background: bool = False) -> bytes:
    """Return a FeatureCollection with one QuPath detection per cell, named by its number.

    Args:
        label: Axes YX or ZYX; cells are the values above 0. A cell of several parts becomes a MultiPolygon; one of a
            stack one such feature per plane, all of its name, with the plane as QuPath keeps it ("plane": {"z": ...}).
        background: Whether to add where the label is 0 as an annotation of class Background.
    """
    # Feature by feature: as text they take a fraction of the memory.
    features = [_compact(_feature(outline, z)) for z, outline in plane_outlines(label)]
    if background:
        nothing = (label == 0).astype(np.uint8)
        features += [_compact(_background_feature(outline, z)) for z, outline in plane_outlines(nothing)]
    return b'{"type":"FeatureCollection","features":[' + b",".join(features) + b"]}"


def encode_rois(label: npt.NDArray[np.integer[Any]], *, background: bool = False) -> bytes:
    """Return a zip of ImageJ ROIs, one per cell, named by its number.

    Args:
        label: Axes YX or ZYX; cells are the values above 0. A cell in one part without holes becomes a polygon; any
            other a composite, so that it stays one ROI and keeps its holes. A cell of a stack becomes one ROI per
            plane, all of its name, at the plane's position; the files are named by cell and slice (from 1).
        background: Whether to add where the label is 0 as a ROI called background.
    """
    outlines = list(plane_outlines(label))
    digits = len(str(max((outline.number for _, outline in outlines), default=1)))
    of_slice = len(str(len(label)))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for z, outline in outlines:
            # Leading zeros: tools that sort by name keep the order, and with it the numbers.
            plane = "" if z is None else f"-{z + 1:0{of_slice}}"
            _add(archive, f"{outline.number:0{digits}}{plane}", _roi(outline, z))
        for z, outline in plane_outlines((label == 0).astype(np.uint8)) if background else ():
            plane = "" if z is None else f"-{z + 1:0{of_slice}}"
            _add(archive, f"{_BACKGROUND}{plane}", _roi(outline, z, _BACKGROUND))
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(f"{name}.roi", _EARLIEST)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def _compact(feature: dict[str, Any]) -> bytes:
    return json.dumps(feature, separators=(",", ":")).encode()


def _feature(outline: Outline, z: int | None) -> dict[str, Any]:
    polygons = [[[*loop, loop[0]] for loop in polygon] for polygon in outline.polygons]
    several = len(polygons) > 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "MultiPolygon" if several else "Polygon",
            "coordinates": polygons if several else polygons[0],
            **({} if z is None else {"plane": {"c": -1, "z": z, "t": 0}}),
        },
        "properties": {"objectType": "detection", "name": str(outline.number)},
    }


def _background_feature(outline: Outline, z: int | None) -> dict[str, Any]:
    feature = _feature(outline, z)
    return {**feature, "properties": {"objectType": "annotation", "classification": {"name": "Background"}}}


def _roi(outline: Outline, z: int | None, name: str = "") -> bytes:
    loops = list(chain.from_iterable(outline.polygons))
    corners = np.array(list(chain.from_iterable(loops)), dtype=np.int32)
    simple = len(loops) == 1 and corners.max() <= _LARGEST_COORDINATE
    corners = corners.clip(max=_LARGEST_COORDINATE)
    roi = roifile.ImagejRoi.frompoints(corners, name=name or str(outline.number))
    roi.right, roi.bottom = (int(at) for at in corners.max(axis=0))  # roifile's are one too large for areas
    roi.roitype = roifile.ROI_TYPE.POLYGON
    if not simple:
        path = np.array(list(chain.from_iterable(map(_path, loops))), dtype=np.float32)
        roi.roitype = roifile.ROI_TYPE.RECT
        roi.integer_coordinates, roi.n_coordinates = None, 0
        roi.multi_coordinates, roi.shape_roi_size = path, len(path)
    if z is not None:
        roi.position = roi.z_position = z + 1  # for plain stacks, and for hyperstacks of several channels
    return bytes(roi.tobytes())


def _path(loop: Loop) -> list[float]:
    """Return a loop as ImageJ writes shapes: commands and coordinates in one row of numbers."""
    moves = [_MOVE, *loop[0]]
    for corner in loop[1:]:
        moves += [_LINE, *corner]
    return [*moves, _CLOSE]
