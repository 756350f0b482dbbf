"""Uploaded label images: what is accepted, and the sentence for everything that is not."""

import io
import random

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.labels import LabelKind, count_cells, decode_labels, encode_labels, without_small

LABEL = np.zeros((20, 30), np.int32)
LABEL[2:6, 2:6] = 1
LABEL[10:15, 12:20] = 7
LABEL[16:, 20:] = 300
SPARSE = np.where(LABEL > 5, LABEL, -1).astype(np.int32)
SPARSE[0:3, 20:] = 0


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(array):
    buffer = io.BytesIO()
    Pillow.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def decode(data, shape=LABEL.shape, kind=LabelKind.LABEL_KIND_INSTANCES, max_pixels=10_000):
    return decode_labels(data, shape=shape, max_pixels=max_pixels, kind=kind)


@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_type_gives_int32(dtype):
    label = decode(tiff(LABEL.astype(dtype), compression="zlib"))
    assert label.dtype == np.int32
    assert np.array_equal(label, LABEL)


def test_png_labels():
    assert np.array_equal(decode(png(LABEL.astype(np.uint16))), LABEL)
    small = np.minimum(LABEL, 200).astype(np.uint8)
    assert np.array_equal(decode(png(small)), small)


def test_palette_indices_are_the_labels():
    image = Pillow.fromarray(np.minimum(LABEL, 9).astype(np.uint8), mode="P")
    image.putpalette([200, 0, 0, 9, 9, 9] * 5)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(decode(buffer.getvalue()), np.minimum(LABEL, 9))


@pytest.mark.parametrize("dtype", ["i2", "i4", "i8", "f4"])
def test_unlabelled_pixels_stay(dtype):
    assert np.array_equal(decode(tiff(SPARSE.astype(dtype))), SPARSE)


def test_a_plain_kind_is_instances():
    assert np.array_equal(decode(tiff(SPARSE), kind=LabelKind.LABEL_KIND_UNSPECIFIED), SPARSE)


def test_offset_by_one_turns_signed_before_it_subtracts():
    for array in ((SPARSE + 1).astype(np.uint16), (SPARSE + 1).astype(np.uint32)):
        assert np.array_equal(decode(tiff(array), kind=LabelKind.LABEL_KIND_OFFSET_BY_ONE), SPARSE)
    assert np.array_equal(decode(png((SPARSE + 1).astype(np.uint16)), kind=LabelKind.LABEL_KIND_OFFSET_BY_ONE), SPARSE)
    largest = np.full((2, 2), 2**31, np.uint32)
    assert decode(tiff(largest), shape=(2, 2), kind=LabelKind.LABEL_KIND_OFFSET_BY_ONE).max() == 2**31 - 1


def test_binary_mask_becomes_connected_components():
    mask = np.zeros((8, 8), np.uint8)
    mask[1:3, 1:3] = 255
    mask[3, 3] = 255  # touches by a corner: 8 neighbours
    mask[6:, 5:] = 128
    label = decode(tiff(mask), shape=(8, 8), kind=LabelKind.LABEL_KIND_BINARY)
    assert count_cells(label) == 2
    assert label[1, 1] == label[3, 3] == 1
    assert label[7, 7] == 2
    assert label[0, 7] == 0
    assert count_cells(decode(tiff(mask > 0), shape=(8, 8), kind=LabelKind.LABEL_KIND_BINARY)) == 2


def test_binary_keeps_what_is_not_labelled():
    mask = np.full((8, 8), -1, np.int16)
    mask[:4] = 0
    mask[1:3, 1:3] = 1
    label = decode(tiff(mask), shape=(8, 8), kind=LabelKind.LABEL_KIND_BINARY)
    assert np.array_equal(label, mask)


def test_one_cell_in_one_part_is_no_mask():
    one = (LABEL == 7).astype(np.uint16)
    assert count_cells(decode(tiff(one))) == 1


def with_value(value, dtype):
    array = LABEL.astype(dtype)
    array[3, 4] = value
    return tiff(array)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (tiff(LABEL[:, :-1]), 1, "is 20 x 29 pixels, its image 20 x 30; both must have the same size"),
        (tiff(LABEL.T), 1, "is 30 x 20 pixels, its image 20 x 30"),
        (with_value(1.5, "f4"), 1, "holds 1.5 at y=3, x=4; labels are whole numbers"),
        (with_value(np.nan, "f4"), 1, r"holds nan at \(3, 4\); allowed: finite"),
        (with_value(np.inf, "f8"), 1, r"holds inf at \(3, 4\)"),
        (with_value(-2, "i4"), 1, "holds -2 at y=3, x=4; -1 means not labelled"),
        (with_value(-7.0, "f4"), 1, "holds -7.0 at y=3, x=4"),
        (with_value(2**31, "u4"), 1, "holds 2147483648 at y=3, x=4; the largest label is 2147483647"),
        (with_value(2**64 - 1, "u8"), 1, "holds 18446744073709551615 at y=3, x=4; the largest label"),
        (with_value(-(2**63), "i8"), 1, "holds -9223372036854775808 at y=3, x=4"),
        (with_value(1e30, "f8"), 1, "holds 1e.30 at y=3, x=4; the largest label"),
        (with_value(-1, "i4"), 3, "holds -1 at y=3, x=4; 0 means not labelled, 1 background"),
        (with_value(-2, "i4"), 2, "holds -2 at y=3, x=4"),
        (tiff(np.full((20, 30), -1, np.int16)), 1, "holds no labelled cell"),
        (tiff(np.zeros((20, 30), np.uint8)), 3, "holds no labelled cell"),
        (
            tiff((LABEL > 0).astype(np.uint8) * 255),
            1,
            "one cell, 255, in 3 separate parts.*`--label-kind binary`.*connected",
        ),
        (tiff(LABEL > 0), 0, "one cell, 1, in 3 separate parts"),
        (png(np.dstack([LABEL.astype(np.uint8)] * 3)), 1, r"has 3 channels \(shape \(20, 30, 3\)\).*single-channel"),
        (tiff(np.stack([LABEL] * 2)), 1, "has 2 channels"),
        (tiff(np.ones((20, 30), np.complex64)), 1, "values of type complex64"),
        (b"", 1, "The label is not a TIFF or PNG file, nor any other that holds labels: it is empty"),
        (b"label", 1, "not a TIFF or PNG file, nor any other that holds labels"),
        (tiff(LABEL)[:-100], 1, "truncated"),
    ],
)
def test_refused(data, kind, words):
    with pytest.raises(InvalidArgument, match=words) as caught:
        decode(data, kind=kind)
    assert caught.value.violations[0][0] == "label"
    assert caught.value.message.endswith(".")


def test_too_large():
    with pytest.raises(ResourceExhausted, match="20 x 30"):
        decode(tiff(LABEL), max_pixels=599)


def test_encode_round_trip_is_deterministic():
    data = encode_labels(SPARSE)
    assert data == encode_labels(SPARSE.astype(np.int64))
    assert tifffile.imread(io.BytesIO(data)).dtype == np.int32
    assert np.array_equal(decode(data), SPARSE)


def test_count_cells():
    assert count_cells(SPARSE) == 2
    assert count_cells(LABEL.astype(np.uint16)) == 3
    assert count_cells(np.full((3, 3), -1, np.int32)) == 0


def test_small_cells_go_without_their_neighbours():
    label = np.zeros((12, 12), np.int32)
    label[0:8, 0] = label[7, 0:8] = 1  # its bounding box holds the small one
    label[2:4, 3:5] = 4
    label[10, 0:3] = label[10, 5:8] = 6  # two parts count together
    before = label.copy()
    np.testing.assert_array_equal(without_small(label, 5), np.where(label == 6, 2, label == 1))
    np.testing.assert_array_equal(without_small(label, 0), np.searchsorted([0, 1, 4, 6], label))
    np.testing.assert_array_equal(label, before)
    assert not without_small(np.zeros((3, 3), np.int32), 9).any()
    assert not without_small(label, 10**9).any()


FILES = [tiff(LABEL), tiff(SPARSE, compression="zlib"), png(LABEL.astype(np.uint16)), tiff(LABEL.astype("f4"))]


@settings(max_examples=300)
@given(st.sampled_from(FILES), st.integers(0, 2**32), st.floats(0, 1), st.sampled_from([0, 1, 2, 3]))
def test_any_bytes_give_labels_or_a_sentence(data, seed, cut, kind):
    random_ = random.Random(seed)
    changed = bytearray(data)
    for _ in range(random_.randrange(6)):
        changed[random_.randrange(min(len(changed), 500))] = random_.randrange(256)
    if random_.random() < 0.5:
        changed = changed[: int(cut * len(changed))]
    try:
        label = decode(bytes(changed), kind=kind)
    except CellsparseError:
        return
    assert label.dtype == np.int32
    assert label.shape == LABEL.shape
    assert label.min() >= -1
    assert label.max() >= 0


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_give_a_sentence(data):
    with pytest.raises(CellsparseError):
        decode(data)
