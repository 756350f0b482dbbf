"""Label images: -1 not labelled, 0 background, n > 0 cell n; int32, axes YX, the size of their image."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common import vector_labels
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.images import decode_image, encode_tiff
from cellsparse_proto.v1 import dataset_pb2

LabelKind = dataset_pb2.LabelKind

_LARGEST = 2**31 - 1
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def decode_labels(
    data: bytes,
    *,
    shape: tuple[int, int],
    max_pixels: int,
    kind: LabelKind = LabelKind.LABEL_KIND_INSTANCES,
    field: str = "label",
) -> npt.NDArray[np.int32]:
    """Decode an uploaded label file.

    Args:
        data: An integer TIFF or PNG file, GeoJSON polygons, or a zip of ImageJ ROIs. The last two say by themselves
            what their shapes mean, whatever `kind`.
        shape: (height, width) of the image the labels belong to.
        max_pixels: Most pixels (height x width) allowed.
        kind: What the values of a TIFF or PNG file mean. In a BINARY mask -1 stays not labelled.
        field: Name of the request's field, for messages.

    Returns:
        int32, axes YX.

    Raises:
        InvalidArgument: Another size than the image, values that are no labels, a binary mask given as instances, or
            no labelled cell; the sentence says what to do.
        ResourceExhausted: More than `max_pixels`.
    """
    if vector_labels.is_vector(data):
        label = vector_labels.decode_vector_labels(data, shape=shape, field=field)
    else:
        values = _integers(_plane(data, shape, max_pixels, field), field)
        label = _by_kind(values, kind, field)
    if not (label > 0).any():
        raise InvalidArgument(
            f"The {field} holds no labelled cell: no value is above 0; mark at least one cell as 1 or more.", field
        )
    return label


def encode_labels(label: npt.NDArray[np.integer[Any]]) -> bytes:
    """Return a label image as a deterministic int32 TIFF file.

    Args:
        label: Axes YX, values from -1 to 2**31 - 1.
    """
    return encode_tiff(label.astype(np.int32, copy=False))


def count_cells(label: npt.NDArray[np.integer[Any]]) -> int:
    """Return the number of different labels above 0.

    Args:
        label: Axes YX.
    """
    return int(np.unique(label[label > 0]).size)


def without_small(label: npt.NDArray[np.int32], min_pixels: int) -> npt.NDArray[np.int32]:
    """Remove cells of few pixels and number the rest 1, 2, ... in their order.

    Pixels are counted by label, all parts of a cell together, whatever its bounding box.

    Args:
        label: Axes YX, 0 background, n > 0 cell n; numbers about as small as there are cells. Not changed.
        min_pixels: Fewest pixels of a cell that stays.

    Returns:
        int32, axes YX.
    """
    kept = np.bincount(label.ravel()) >= max(min_pixels, 1)
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    renumbered: npt.NDArray[np.int32] = number[label]
    return renumbered


def _plane(data: bytes, shape: tuple[int, int], max_pixels: int, field: str) -> npt.NDArray[np.generic]:
    """Decode the file and compare its size with the image's."""
    image = decode_image(data, max_pixels=max_pixels, field=field, indices=True)
    if image.axes != "YX":
        raise InvalidArgument(
            f"The {field} has {image.array.shape[2]} channels (shape {image.array.shape}); allowed: one. Save the "
            "label numbers as a single-channel integer TIFF, not as colours.",
            field,
        )
    if image.array.shape != tuple(shape):
        has, wants = (f"{height} x {width}" for height, width in (image.array.shape, shape))
        raise InvalidArgument(f"The {field} is {has} pixels, its image {wants}; both must have the same size.", field)
    return image.array


def _integers(values: npt.NDArray[Any], field: str) -> npt.NDArray[np.signedinteger[Any]]:
    """Return whole numbers as int32, or int64 where they may not fit yet.

    Signed before anything is subtracted or masked: -1 written into a uint16 array silently becomes 65535.
    """
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        _refuse(values, values != np.floor(values), "labels are whole numbers; save them as an integer TIFF", field)
    _refuse(values, values > _LARGEST + 1, f"the largest label is {_LARGEST}", field)
    _refuse(values, values < -1, "-1 means not labelled, 0 background, n > 0 cell n", field)
    return values.astype(np.int32 if np.can_cast(values.dtype, np.int32) else np.int64)


def _by_kind(values: npt.NDArray[np.signedinteger[Any]], kind: LabelKind, field: str) -> npt.NDArray[np.int32]:
    """Return labels from values as `kind` says."""
    if kind == LabelKind.LABEL_KIND_OFFSET_BY_ONE:
        _refuse(values, values < 0, "0 means not labelled, 1 background, n + 1 cell n", field)
        values = values - 1
    _refuse(values, values > _LARGEST, f"the largest label is {_LARGEST}", field)
    label = values.astype(np.int32, copy=False)
    if kind == LabelKind.LABEL_KIND_BINARY:
        cells, _ = ndimage.label(label > 0, structure=_EIGHT_NEIGHBOURS)
        return np.where(label > 0, cells.astype(np.int32), label)
    if kind != LabelKind.LABEL_KIND_OFFSET_BY_ONE:
        _refuse_mask(label, field)
    return label


def _refuse_mask(label: npt.NDArray[np.int32], field: str) -> None:
    """Refuse a binary mask: one value, several separate parts."""
    cells = label[label > 0]
    if cells.size == 0 or (cells != cells[0]).any():
        return
    _, parts = ndimage.label(label > 0, structure=_EIGHT_NEIGHBOURS)
    if parts > 1:
        raise InvalidArgument(
            f"The {field} has one cell, {int(cells[0])}, in {parts} separate parts: it looks like a binary mask. Give "
            "every cell its own number, or upload it as LABEL_KIND_BINARY to make each connected component a cell.",
            field,
        )


def _refuse(values: npt.NDArray[Any], bad: npt.NDArray[np.bool_], allowed: str, field: str) -> None:
    """Raise naming the first bad value and where it is."""
    if bad.any():
        y, x = (int(at) for at in np.unravel_index(int(bad.argmax()), bad.shape))
        raise InvalidArgument(f"The {field} holds {values[y, x]} at y={y}, x={x}; {allowed}.", field)
