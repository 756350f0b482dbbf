"""Label images from drawn annotations: GeoJSON polygons (QuPath), also zipped, and ImageJ ROIs.

Annotations of class `Background` become 0, other cells 1, 2, ... in their order, the rest of the image -1. What is no
cell to the tool that wrote it (see `qupath_objects` and `regions`) is left out and told.
"""

from collections.abc import Sequence

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import geojson, imagej_roi, json_features, zip_members
from cellsparse_common.imaging.polygons import Drawing, draw
from cellsparse_common.imaging.shapes import Shape
from cellsparse_common.imaging.stack_drawing import draw_stack
from cellsparse_common.imaging.types import Labels

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GEOJSON_SUFFIXES = (".geojson", ".json")


def is_vector(data: bytes) -> bool:
    """Tell by its first bytes whether a file holds GeoJSON or ImageJ ROIs rather than pixels."""
    text = data[:64].removeprefix(_BYTE_ORDER_MARK).lstrip()
    return data.startswith((*zip_members.SIGNATURES, imagej_roi.ROI_SIGNATURE)) or text.startswith((b"{", b"["))


def draw_vector_labels(data: bytes, *, shape: tuple[int, ...], field: str = "label") -> Drawing:
    """Draw the annotations of a file.

    Args:
        data: GeoJSON, a zip of one GeoJSON file, a zip of ImageJ ROIs, or one ImageJ ROI.
        shape: (height, width) of the image, or (planes, height, width) of a stack, whose shapes name their planes.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: The file cannot be read, or a shape lies outside the image, or none is a label.
        ResourceExhausted: The file exceeds a limit.
    """
    shapes, rois = _read(data, field)
    drawn = [each for each in shapes if not each.skipped]
    if len({each.time for each in drawn}) > 1:
        raise InvalidArgument(f"The {field} has shapes on several time points; export those of one.", field)
    if len(shape) == 3:
        return draw_stack(shapes, (shape[0], shape[1], shape[2]), field)
    # The position of a ROI of a 2D image may be that of a channel.
    if not rois and len(planes := {each.plane for each in drawn}) > 1:
        raise InvalidArgument(
            f"The {field} has shapes on {len(planes)} planes, and its image is one; export those of one plane.", field
        )
    return draw(shapes, (shape[0], shape[1]), field)


def decode_vector_labels(data: bytes, *, shape: tuple[int, ...], field: str = "label") -> Labels:
    """Return the label image of the annotations of a file (see `draw_vector_labels`)."""
    return draw_vector_labels(data, shape=shape, field=field).label


def unpacked(data: bytes, field: str) -> bytes:
    """Return the GeoJSON or COCO file of a zip that holds one, and any other file as it is.

    Raises:
        InvalidArgument: A zip holds several such files, or ROIs beside one.
        ResourceExhausted: It unpacks to too much.
    """
    if not data.startswith(zip_members.SIGNATURES):
        return data
    members = list(zip_members.read_members(data, _GEOJSON_SUFFIXES, json_features.MAX_BYTES, field))
    if not members:
        return data
    if len(members) > 1 or any(zip_members.read_members(data, (".roi",), imagej_roi.MAX_ROI_BYTES, field)):
        names = ", ".join(repr(name[:50]) for name, _ in members[:3])
        raise InvalidArgument(
            f"The {field} is a zip of several annotation files ({names}, ...); allowed: one GeoJSON file as QuPath "
            "exports it, or ImageJ ROIs only.",
            field,
        )
    return members[0][1]


def _read(data: bytes, field: str) -> tuple[Sequence[Shape], bool]:
    """Return the shapes of a file, and whether they are ImageJ's ROIs."""
    data = unpacked(data, field)
    if data.startswith((imagej_roi.ROI_SIGNATURE, *zip_members.SIGNATURES)):
        return imagej_roi.read_shapes(data, field), True
    return geojson.read_shapes(data, field), False
