"""Label images from drawn annotations: GeoJSON polygons (QuPath) and ImageJ ROIs.

Annotations of class `Background` become 0, all others cells 1, 2, ... in their order, the rest of the image -1.
"""

from cellsparse_common.imaging import geojson, imagej_roi
from cellsparse_common.imaging.polygons import paint
from cellsparse_common.imaging.types import Labels

_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_vector(data: bytes) -> bool:
    """Tell by its first bytes whether a file holds GeoJSON or ImageJ ROIs rather than pixels."""
    text = data[:64].removeprefix(_BYTE_ORDER_MARK).lstrip()
    return _is_roi(data) or text.startswith((b"{", b"["))


def decode_vector_labels(data: bytes, *, shape: tuple[int, int], field: str = "label") -> Labels:
    """Draw the annotations of a file.

    Args:
        data: GeoJSON, a zip of ImageJ ROIs, or one ImageJ ROI.
        shape: (height, width) of the image.
        field: Name of the request's field, for messages.

    Returns:
        int32, axes YX: -1 where nothing is drawn, 0 background, n > 0 cell n.

    Raises:
        InvalidArgument: The file cannot be read, or a shape is none or lies outside the image.
        ResourceExhausted: The file exceeds a limit.
    """
    read = imagej_roi.read_shapes if _is_roi(data) else geojson.read_shapes
    return paint(read(data, field), shape, field)


def _is_roi(data: bytes) -> bool:
    return data.startswith((*_ZIP_SIGNATURES, imagej_roi.ROI_SIGNATURE))
