"""Label images: -1 not labelled, 0 background, n > 0 cell n; int32, axes YX or ZYX, the size of their image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import cellpose_seg, coco, ome_zarr, vector_labels
from cellsparse_common.imaging.disk_array import in_bands, release, zeros
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.layout import STACK_HINT
from cellsparse_common.imaging.lossy import refuse_lossy
from cellsparse_common.imaging.masks import binary_cells, positive_values, refuse_masks
from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_proto.v1 import dataset_pb2

LabelKind = dataset_pb2.LabelKind

_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """What a label file holds."""

    label: Labels
    """int32, axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n."""
    skipped: int = 0
    """Number of shapes in the file that are no labels."""
    notes: Sequence[str] = ()
    """Sentences on what was left out or assumed."""
    unchanged: bool = False
    """The pixels of the file are these very values, in this type."""


def read_label_file(
    data: bytes,
    *,
    shape: tuple[int, ...],
    max_pixels: int,
    kind: LabelKind = LabelKind.LABEL_KIND_INSTANCES,
    field: str = "label",
    partial: bool = False,
) -> LabelFile:
    """Decode an uploaded label file.

    Args:
        data: An integer TIFF, PNG or zipped OME-Zarr, Cellpose's `_seg.npy`, GeoJSON polygons or ImageJ ROIs, which
            name their planes in a stack, or for a 2D image COCO JSON. Outlines, COCO and Cellpose's files have a
            meaning of their own, whatever `kind`; a `.npy` file of a plain array has not.
        shape: (height, width) of the image the labels belong to, or (planes, height, width) of a stack.
        max_pixels: Most pixels (height x width, of a stack x planes) allowed.
        kind: What the values of a TIFF or PNG file mean. In a BINARY mask -1 stays not labelled.
        field: Name of the request's field, for messages.
        partial: Whether these labels are only some of their image's. Values offset by one are then not compared with
            those of masks.

    Raises:
        InvalidArgument: Another size than the image, values that are no labels, a mask given as instances, or no
            labelled pixel. The sentence names the remedy.
        ResourceExhausted: More than `max_pixels`.
    """
    refuse_lossy(data, field)
    if cellpose_seg.is_npy(data):
        read = _read_npy(data, shape, kind, field, partial=partial)
    elif vector_labels.is_vector(data) and not ome_zarr.is_zipped(data):
        read = _read_shapes(data, shape, field)
    else:
        found = _values(data, shape, max_pixels, field)
        label, notes = _by_kind(_integers(found, field), kind, field, partial=partial)
        read = LabelFile(label=label, notes=notes, unchanged=label is found)
    if not any((rows >= 0).any() for rows in in_bands(read.label)):
        raise InvalidArgument(
            f"The {field} holds no labelled cell and no background: all its pixels are not labelled (-1).", field
        )
    return read


def decode_labels(
    data: bytes,
    *,
    shape: tuple[int, ...],
    max_pixels: int,
    kind: LabelKind = LabelKind.LABEL_KIND_INSTANCES,
    field: str = "label",
    partial: bool = False,
) -> Labels:
    """Return the label image of an uploaded label file (see `read_label_file`)."""
    return read_label_file(data, shape=shape, max_pixels=max_pixels, kind=kind, field=field, partial=partial).label


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
    return int(positive_values(label).size)


def count_labelled(label: npt.NDArray[np.integer[Any]]) -> int:
    """Return the number of pixels that are not -1, looking at some rows (or planes) at a time."""
    return sum(int(np.count_nonzero(rows >= 0)) for rows in in_bands(label))


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


def _read_shapes(data: bytes, shape: tuple[int, ...], field: str) -> LabelFile:
    """Draw a file of outlines."""
    data = vector_labels.unpacked(data, field)
    if coco.is_coco(data):
        if len(shape) != 2:
            raise InvalidArgument(
                f"The {field} is COCO, which holds 2D images, but its image is a stack of {shape[0]} planes; allowed: "
                "an integer TIFF of the same planes, or outlines that name their planes.",
                field,
            )
        drawing = coco.draw_annotations(data, shape=(shape[0], shape[1]), field=field)
    else:
        drawing = vector_labels.draw_vector_labels(data, shape=shape, field=field)
    return LabelFile(label=drawing.label, skipped=len(drawing.skipped), notes=drawing.notes)


def _read_npy(data: bytes, shape: tuple[int, ...], kind: LabelKind, field: str, *, partial: bool) -> LabelFile:
    """Read Cellpose's file, or a plain array as if it were a TIFF."""
    found = cellpose_seg.read_masks(data, shape=shape, field=field)
    if not found.cellpose:
        label, notes = _by_kind(found.label, kind, field, partial=partial)
        return LabelFile(label=label, notes=notes)
    try:
        notes = refuse_masks(found.label, field)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error.message} Files of Cellpose hold numbered cells, whatever the label kind: save such a mask as TIFF "
            "or PNG.",
            field,
        ) from None
    return LabelFile(label=found.label, notes=[*found.notes, *notes])


def _values(data: bytes, shape: tuple[int, ...], max_pixels: int, field: str) -> npt.NDArray[np.generic]:
    """Decode the file and compare its size with the image's."""
    image = decode_image(data, max_pixels=max_pixels, field=field, labels=True, stacks=len(shape) == 3)
    if "C" in image.axes:
        raise InvalidArgument(
            f"The {field} has {image.array.shape[-1]} channels (shape {image.array.shape}); allowed: one. Save the "
            f"label numbers as a single-channel integer TIFF, not as colours. {STACK_HINT}",
            field,
        )
    if image.array.shape != tuple(shape):
        has, wants = (" x ".join(map(str, size)) for size in (image.array.shape, shape))
        hint = ""
        if image.array.shape == tuple(shape[::-1]):
            hint = " Labels are drawn on the image as viewers show it, which a JPEG's EXIF orientation may turn."
        raise InvalidArgument(
            f"The {field} is {has} pixels, its image {wants}; both must have the same size.{hint}", field
        )
    return image.array


def _integers(values: npt.NDArray[Any], field: str) -> npt.NDArray[np.signedinteger[Any]]:
    """Return whole numbers as int32, or int64 where they may not fit yet.

    Signed before anything is subtracted or masked: -1 written into a uint16 array silently becomes 65535.
    """
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        _refuse(
            values, lambda rows: rows != np.floor(rows), "labels are whole numbers; save them as an integer TIFF", field
        )
    _refuse(
        values,
        lambda rows: rows > _LARGEST + 1,
        f"the largest label is {_LARGEST}, and what is not labelled is -1 in a signed type",
        field,
    )
    _refuse(values, lambda rows: rows < -1, "-1 means not labelled, 0 background, n > 0 cell n", field)
    return _converted(values, np.int32 if np.can_cast(values.dtype, np.int32) else np.int64)


def _by_kind(
    values: npt.NDArray[np.signedinteger[Any]], kind: LabelKind, field: str, *, partial: bool
) -> tuple[Labels, list[str]]:
    """Return labels from values of this kind, and sentences on what was assumed."""
    if kind == LabelKind.LABEL_KIND_OFFSET_BY_ONE:
        _refuse(values, lambda rows: rows < 0, "0 means not labelled, 1 background, n + 1 cell n", field)
        values = values - 1
    _refuse(values, lambda rows: rows > _LARGEST, f"the largest label is {_LARGEST}", field)
    label = _converted(values, np.int32)
    if kind == LabelKind.LABEL_KIND_BINARY:
        return binary_cells(label, field)
    if kind == LabelKind.LABEL_KIND_OFFSET_BY_ONE and partial:
        return label, []
    return label, refuse_masks(label, field, classes_only=kind == LabelKind.LABEL_KIND_OFFSET_BY_ONE)


def _converted(values: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return values in another type, on disk if they are many."""
    if values.dtype == np.dtype(dtype):
        return values
    converted = zeros(values.shape, dtype)
    done = 0
    for target in in_bands(converted):
        target[...] = values[done : done + len(target)]
        release(values)
        done += len(target)
    return converted


def _refuse(values: npt.NDArray[Any], is_bad: Callable[[npt.NDArray[Any]], Mask], allowed: str, field: str) -> None:
    """Raise naming the first bad value and where it is."""
    done = 0
    for rows in in_bands(values):
        bad = is_bad(rows)
        if bad.any():
            first = [int(at) for at in np.unravel_index(int(bad.argmax()), bad.shape)]
            place = (first[0] + done, *first[1:])
            spelled = ", ".join(f"{axis}={at}" for axis, at in zip("zyx"[-bad.ndim :], place, strict=True))
            raise InvalidArgument(f"The {field} holds {values[place]} at {spelled}; {allowed}.", field)
        done += len(rows)
