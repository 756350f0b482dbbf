"""Label images: -1 not labelled, 0 background, n > 0 cell n; int32, axes YX or ZYX, the size of their image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import cellpose_seg, coco, vector_labels
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_proto.v1 import dataset_pb2

LabelKind = dataset_pb2.LabelKind

_LARGEST = 2**31 - 1


def decode_labels(
    data: bytes,
    *,
    shape: tuple[int, ...],
    max_pixels: int,
    kind: LabelKind = LabelKind.LABEL_KIND_INSTANCES,
    field: str = "label",
    partial: bool = False,
) -> Labels:
    """Decode an uploaded label file.

    Args:
        data: An integer TIFF or PNG file, Cellpose's `_seg.npy`, or for a 2D image GeoJSON polygons, a zip of ImageJ
            ROIs, or COCO JSON. All but the first two have a meaning of their own, whatever `kind`.
        shape: (height, width) of the image the labels belong to, or (planes, height, width) of a stack.
        max_pixels: Most pixels (height x width, of a stack x planes) allowed.
        kind: What the values of a TIFF or PNG file mean. In a BINARY mask -1 stays not labelled.
        field: Name of the request's field, for messages.
        partial: Whether these labels are only some of their image's: then they may be background alone, and a single
            cell may have several parts if the file has pixels that are not labelled, which a binary mask has not.

    Returns:
        int32, axes YX or ZYX.

    Raises:
        InvalidArgument: Another size than the image, values that are no labels, a binary mask given as instances, or
            no labelled cell. The sentence names the remedy.
        ResourceExhausted: More than `max_pixels`.
    """
    if cellpose_seg.is_npy(data):
        label = cellpose_seg.read_labels(data, shape=shape, field=field)
    elif coco.is_coco(data) or vector_labels.is_vector(data):
        if len(shape) != 2:
            raise InvalidArgument(
                f"The {field} holds outlines, but its image is a stack of {shape[0]} planes; allowed: an integer TIFF "
                "of the same planes.",
                field,
            )
        read = coco.read_labels if coco.is_coco(data) else vector_labels.decode_vector_labels
        label = read(data, shape=(shape[0], shape[1]), field=field)
    else:
        values = _integers(_values(data, shape, max_pixels, field), field)
        label = _by_kind(values, kind, field, masks=partial and bool((values == -1).any()))
    if partial and not (label >= 0).any():
        raise InvalidArgument(f"The {field} holds no label: all its pixels are not labelled.", field)
    if not partial and not (label > 0).any():
        raise InvalidArgument(
            f"The {field} holds no labelled cell: no value is above 0; mark at least one cell as 1 or more.", field
        )
    return label


def encode_labels(label: npt.NDArray[np.integer[Any]], spacing: Sequence[float] = ()) -> bytes:
    """Return a label image as a deterministic int32 TIFF file.

    Args:
        label: Axes YX, or ZYX with at least 2 planes; values from -1 to 2**31 - 1.
        spacing: Micrometres per pixel along each axis; empty if not known.
    """
    stack = label.ndim == 3
    return encode_tiff(label.astype(np.int32, copy=False), stack=stack, spacing=spacing if stack else ())


def count_cells(label: npt.NDArray[np.integer[Any]]) -> int:
    """Return the number of different labels above 0.

    Args:
        label: Axes YX or ZYX.
    """
    return int(np.unique(label[label > 0]).size)


def without_small(label: Labels, min_pixels: int) -> Labels:
    """Remove cells of few pixels and number the rest 1, 2, ... in their order.

    Pixels are counted by label, all parts of a cell together, whatever its bounding box.

    Args:
        label: Axes YX or ZYX, 0 background, n > 0 cell n; numbers about as small as there are cells. Not changed.
        min_pixels: Fewest pixels (voxels) of a cell that stays.

    Returns:
        int32, axes as given.
    """
    kept = np.bincount(label.ravel()) >= max(min_pixels, 1)
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    renumbered: Labels = number[label]
    return renumbered


def _values(data: bytes, shape: tuple[int, ...], max_pixels: int, field: str) -> npt.NDArray[np.generic]:
    """Decode the file and compare its size with the image's."""
    image = decode_image(data, max_pixels=max_pixels, field=field, labels=True, stacks=len(shape) == 3)
    if "C" in image.axes:
        raise InvalidArgument(
            f"The {field} has {image.array.shape[-1]} channels (shape {image.array.shape}); allowed: one. Save the "
            "label numbers as a single-channel integer TIFF, not as colours.",
            field,
        )
    if image.array.shape != tuple(shape):
        has, wants = (" x ".join(map(str, size)) for size in (image.array.shape, shape))
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


def _by_kind(values: npt.NDArray[np.signedinteger[Any]], kind: LabelKind, field: str, *, masks: bool = False) -> Labels:
    """Return labels from values of this kind; with `masks` also of what could be a binary mask given as instances."""
    if kind == LabelKind.LABEL_KIND_OFFSET_BY_ONE:
        _refuse(values, values < 0, "0 means not labelled, 1 background, n + 1 cell n", field)
        values = values - 1
    _refuse(values, values > _LARGEST, f"the largest label is {_LARGEST}", field)
    label = values.astype(np.int32, copy=False)
    if kind == LabelKind.LABEL_KIND_BINARY:
        cells, _ = ndimage.label(label > 0, structure=_neighbours(label))
        return np.where(label > 0, cells.astype(np.int32), label)
    if kind != LabelKind.LABEL_KIND_OFFSET_BY_ONE and not masks:
        _refuse_mask(label, field)
    return label


def _refuse_mask(label: Labels, field: str) -> None:
    """Refuse a binary mask: one value, several separate parts."""
    cells = label[label > 0]
    if cells.size == 0 or (cells != cells[0]).any():
        return
    _, parts = ndimage.label(label > 0, structure=_neighbours(label))
    if parts > 1:
        raise InvalidArgument(
            f"The {field} has one cell, {int(cells[0])}, in {parts} separate parts: it looks like a binary mask. Give "
            "every cell its own number, or upload it as LABEL_KIND_BINARY to make each connected component a cell.",
            field,
        )


def _neighbours(label: Labels) -> Mask:
    """Return what counts as connected: all pixels around one, 8 or 26."""
    return np.ones((3,) * label.ndim, dtype=bool)


def _refuse(values: npt.NDArray[Any], bad: Mask, allowed: str, field: str) -> None:
    """Raise naming the first bad value and where it is."""
    if bad.any():
        place = tuple(int(at) for at in np.unravel_index(int(bad.argmax()), bad.shape))
        spelled = ", ".join(f"{axis}={at}" for axis, at in zip("zyx"[-bad.ndim :], place, strict=True))
        raise InvalidArgument(f"The {field} holds {values[place]} at {spelled}; {allowed}.", field)
