"""Masks whose values are not cells are refused with the way to upload them; cells are never taken for a mask."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from scipy import ndimage

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.labels import LabelKind, read_label_file

SHAPE = (96, 128)
CELLS = np.zeros(SHAPE, np.int32)
for _number, (_y, _x) in enumerate([(20, 20), (20, 60), (20, 100), (70, 20), (70, 60), (70, 100)], 1):
    _rows, _columns = np.ogrid[:96, :128]
    CELLS[(_rows - _y) ** 2 + (_columns - _x) ** 2 <= 81] = _number
MASK = (CELLS > 0).astype(np.uint8)
INTERIOR = ndimage.binary_erosion(MASK).astype(np.uint8)
BINARY, OFFSET = LabelKind.LABEL_KIND_BINARY, LabelKind.LABEL_KIND_OFFSET_BY_ONE


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def read(array, kind=LabelKind.LABEL_KIND_INSTANCES, shape=SHAPE):
    data = array if isinstance(array, bytes) else tiff(array)
    return read_label_file(data, shape=shape, max_pixels=10**6, kind=kind)


def counts(label):
    values, pixels = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


def classes(*edges):
    """Return the cells with values by their number: up to the first edge 1, up to the second 2, ..."""
    return np.where(CELLS > 0, np.searchsorted(edges, CELLS) + 1, 0).astype(np.uint8)


MASKS = {
    "0/255": MASK * 255,
    "0/1": MASK,
    "0/65535": MASK.astype(np.uint16) * 65535,
    "float": MASK.astype(np.float32),
    "1/2": MASK + 1,
    "1/2 as int32": (MASK + 1).astype(np.int32),
    "1/2 of one cell": (CELLS == 1).astype(np.uint8) + 1,
    "2/1": 2 - MASK,
    "two classes": classes(3),
    "three classes": classes(2, 4),
    "1/2/3": classes(3) + 1,
    "interior/border/background": MASK + INTERIOR,
    "background 1, interior, border": MASK + INTERIOR + 1,
    "0/127/255": MASK * 127 + INTERIOR * 128,
    "0/128/255 of three cells": np.where(CELLS <= 3, MASK * 128 + INTERIOR * 127, 0).astype(np.uint8),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_given_as_instances_is_refused_with_the_option(name):
    with pytest.raises(InvalidArgument, match="--label-kind binary") as caught:
        read(MASKS[name])
    assert "LABEL_KIND" not in caught.value.message


@pytest.mark.parametrize("name", ["0/255", "0/65535", "1/2", "0/127/255", "interior/border/background", "two classes"])
def test_the_option_works(name):
    found = read(MASKS[name], BINARY)
    assert counts(found.label) == {0: 10770} | dict.fromkeys(range(1, 7), 253)
    assert bool(found.notes) == (name == "1/2")


def test_what_no_option_can_tell_is_refused_for_binary_masks():
    for array, words in [
        (2 - MASK, "which of them is background is not clear"),
        (np.ones(SHAPE, np.uint8), "no background"),
        (classes(3) + 1, "no background: no pixel is 0, and its values are 1, 2, 3"),
        (np.where(CELLS == 1, 1, np.where(CELLS == 2, 0, 255)).astype(np.uint8), "holds 1 and 255.*-1"),
        (np.where(CELLS == 1, 1, 255).astype(np.uint8), "not clear"),
    ]:
        with pytest.raises(InvalidArgument, match=words):
            read(array, BINARY)


LINES = np.where(CELLS > 0, CELLS, np.where(ndimage.binary_dilation(CELLS), 0, 7))
"""Regions of a watershed: the background is one of them, and 0 only lies between them."""
ONE_AROUND = {
    "0/1 inverted": 1 - MASK,
    "0/3 inverted": (1 - MASK) * 3,
    "regions of a watershed": LINES,
    "cells at the border": np.where(np.roll(CELLS, 20, axis=1) > 0, 0, 5),
}


@pytest.mark.parametrize("name", ONE_AROUND)
def test_a_value_around_all_others_is_no_cell(name):
    array = ONE_AROUND[name]
    with pytest.raises(InvalidArgument, match=f"the value {array[0, 0]} on most of the image's border"):
        read(array)
    stack = tiff(np.stack([array] * 3), photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(InvalidArgument, match="Save background as 0"):
        read(stack, shape=(3, *SHAPE))


@pytest.mark.parametrize("array", [1 - MASK, (1 - MASK) * 255, (1 - INTERIOR)], ids=["0/1", "0/255", "larger"])
def test_an_inverted_binary_mask_is_refused(array):
    with pytest.raises(InvalidArgument, match="either it is inverted, or its cells touch"):
        read(array, BINARY)


def test_a_large_image_is_looked_at_in_part(monkeypatch):
    monkeypatch.setattr("cellsparse_common.imaging.masks._MOST_TO_FILL", 1_000)
    with pytest.raises(InvalidArgument, match="looks like background, as in an inverted mask"):
        read(LINES)


def test_unsigned_minus_one_is_refused():
    sparse = np.where((CELLS > 0) & (CELLS <= 2), CELLS, -1)
    with_background = np.where(CELLS == 3, 0, sparse)
    for dtype in ("u1", "u2", "u4", "u8"):
        for array in (sparse, with_background):
            with pytest.raises(InvalidArgument, match="signed type"):
                read(array.astype(dtype))
    with pytest.raises(InvalidArgument, match="becomes in uint16"):
        read(sparse.astype(np.uint16).astype(np.int32))
    with pytest.raises(InvalidArgument, match="65535 in 506 pixels"):  # not larger than the others
        read(np.where(CELLS > 4, 65535, np.where(CELLS > 0, 1, 0)).astype(np.uint16) * (CELLS > 3))
    only_background = np.where(CELLS == 1, 0, -1).astype(np.uint8)
    with pytest.raises(InvalidArgument, match=r"-1 \(not labelled\)"):
        read(only_background)
    for dtype in ("i1", "i2", "i4", "i8", "f4"):
        assert np.array_equal(read(sparse.astype(dtype)).label, sparse)


def test_offset_by_one_given_as_instances_is_refused():
    with pytest.raises(InvalidArgument, match="--label-kind offset_by_one"):
        read((CELLS + 1).astype(np.uint16))
    assert np.array_equal(read((CELLS + 1).astype(np.uint16), OFFSET).label, CELLS)
    with pytest.raises(InvalidArgument, match="binary mask"):
        read(MASK + 1, OFFSET)


def tiles(size, shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]] // size
    return (rows * (shape[1] // size) + columns + 1).astype(np.int32)


CELLS_OF_KINDS = {
    "sparse, one cell in parts": np.where(CELLS > 0, 1, -1),
    "sparse, a stray pixel": np.where(CELLS == 1, 1, np.where(CELLS == 2, 0, -1)),
    "sparse, two values": np.where(CELLS > 0, MASK.astype(np.int32) + INTERIOR, -1),
    "one": np.where(CELLS == 4, 4, 0),
    "a cell in two parts": np.where(CELLS == 6, 5, CELLS),
    "two cells": np.where(CELLS < 3, CELLS, 0),
    "no background": tiles(16, SHAPE),
    "255 cells": np.where(tiles(4, SHAPE) < 256, tiles(4, SHAPE), 0).astype(np.uint8),
    "the 255th alone of many": np.where(np.isin(CELLS, [1, 2]), CELLS + 250, np.where(CELLS == 3, 255, 0)),
    "large numbers": np.where(CELLS > 0, CELLS * 300_000_000, 0),
    "touching": np.where(CELLS > 0, CELLS, np.where(tiles(16, SHAPE) == 1, 7, 0)),
    "one that fills the image but for its corners": np.where(np.add.outer(range(96), range(128)) < 30, 0, 4),
    "one around an edge": np.where(CELLS == 4, 1, np.where(tiles(32, SHAPE) == 1, 2, 0)),
    "background only": np.zeros(SHAPE, np.uint8),
}


@pytest.mark.parametrize("name", CELLS_OF_KINDS)
def test_cells_are_never_taken_for_a_mask(name):
    array = CELLS_OF_KINDS[name]
    found = read(array)
    assert np.array_equal(found.label, array)
    assert bool(found.notes) == (name == "a cell in two parts")


def test_a_stray_pixel_beside_minus_one():
    label = np.where(CELLS == 1, 1, -1)
    label[:4] = 0
    label[90, 120] = 1
    assert counts(read(label).label) == {-1: 12288 - 512 - 254, 0: 512, 1: 254}


def test_planes_between_drawn_ones():
    label = np.full((12, 64, 64), -1, np.int32)
    for z in range(2, 10, 2):
        label[z] = 0
        label[z, 20:40, 20:40] = 1
    data = tiff(label, photometric="minisblack", metadata={"axes": "ZYX"})
    assert np.array_equal(read(data, shape=label.shape).label, label)


def jpeg_file():
    buffer = io.BytesIO()
    Pillow.fromarray(MASK).save(buffer, "JPEG")
    return buffer.getvalue()


LOSSY = {
    "JPEG": tiff(MASK, compression="jpeg"),
    "JPEG 2000": tiff(MASK, compression="jpeg2000"),
    "WebP": tiff(np.dstack([MASK] * 3), compression="webp", photometric="rgb"),
    "JPEG XR": tiff(MASK, compression="jpegxr"),
    "JPEG in BigTIFF": tiff(MASK, compression="jpeg", bigtiff=True),
    "JPEG, big-endian": tiff(MASK, compression="jpeg", byteorder=">"),
    "JPEG file": jpeg_file(),
    "JPEG 2000 file": bytes(imagecodecs.jpeg2k_encode(MASK)),
    "WebP file": bytes(imagecodecs.webp_encode(np.dstack([MASK] * 3))),
}


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("kind", [LabelKind.LABEL_KIND_INSTANCES, BINARY])
def test_lossy_labels_are_refused(name, kind):
    with pytest.raises(InvalidArgument, match="changes numbers; save labels") as caught:
        read(LOSSY[name], kind)
    assert name.split(" ")[0].rstrip(",") in caught.value.message
