"""Cellpose's `_seg.npy` files: nothing in them is run, memory is bounded, and stock Cellpose reads ours."""

import io
import os
import pathlib
import pickle

import numpy as np
import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.cellpose_child import read_content
from cellsparse_common.imaging.cellpose_seg import encode_seg, read_masks
from cellsparse_common.imaging.labels import LabelKind, read_label_file
from cellsparse_common.imaging.pickled_arrays import RefusedError


def label_image(data, most_pixels):
    return read_content(data, most_pixels).values


MASKS = np.kron(np.array([[0, 1], [2, 0]]), np.ones((6, 8), int))
PARTS = np.zeros(MASKS.shape, np.uint8)
PARTS[1::6, 1::9] = PARTS[2::6, 1::9] = 1  # four parts


def npy(body):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    return stream.getvalue() + body


def saved(content, protocol=3):
    entry = np.empty((), object)
    entry[()] = content
    return npy(pickle.dumps(entry, protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("masks", [MASKS.astype(">u2"), np.asfortranarray(MASKS.astype(np.uint32)), MASKS - 1])
def test_files_of_all_versions_of_cellpose(protocol, masks):
    content = {
        "masks": masks,
        "outlines": masks,
        "ismanual": np.zeros(2, bool),
        "filename": pathlib.PurePosixPath("/somewhere/a.tif"),
        "flows": [np.zeros((1, 4, 4, 3), np.uint8), [], [[]]],
        "est_diam": np.float32(30.5),
        "chan_choose": [0, 0],
        "model_path": 0,
        "manual_changes": [],
        "colors": np.zeros((2, 3)),
    }
    assert np.array_equal(label_image(saved(content, protocol), MASKS.size), MASKS)


def test_a_file_of_numpy_1():
    data = saved({"masks": MASKS}).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(label_image(data, MASKS.size), MASKS)


def test_a_file_from_before_cellpose_1_counts_from_minus_1():
    for content in ({"masks": MASKS - 1}, {"masks": MASKS - 1, "outlines": MASKS - 1}):
        found = read_file(saved(content))
        assert np.array_equal(found.label, MASKS)
        assert "-1 is background" in found.notes[0]
    with pytest.raises(InvalidArgument, match=r"-1 in its masks and not in its outlines.*int32 TIFF"):
        read_file(saved({"masks": MASKS - 1, "outlines": MASKS}))


def plain(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def read_file(data, **options):
    return read_label_file(data, shape=MASKS.shape, max_pixels=10**6, **options)


def test_a_plain_array_means_what_a_tiff_of_it_would():
    sparse = np.where(MASKS == 2, 2, -1)
    sparse[:2] = 0
    for dtype in ("i1", "<i2", ">i4", "i8"):
        assert np.array_equal(read_file(plain(sparse.astype(dtype))).label, sparse)
    offset = read_file(plain((sparse + 1).astype(np.uint8)), kind=LabelKind.LABEL_KIND_OFFSET_BY_ONE)
    assert np.array_equal(offset.label, sparse)
    assert np.array_equal(read_file(plain(MASKS > 0), kind=LabelKind.LABEL_KIND_BINARY).label.max(), 1)
    for array, words in [
        (sparse.astype(np.uint16), "65535"),
        (sparse - 1, "values from -2 to 1; allowed: -1"),
        (MASKS * 0.5, "values of type float64"),
        (PARTS, "one cell, 1, in 4 separate parts.*--label-kind binary"),
    ]:
        with pytest.raises(InvalidArgument, match=words):
            read_file(plain(array))


@pytest.mark.parametrize(
    "masks", [PARTS, PARTS > 0, PARTS * np.uint8(255), PARTS + 1], ids=["0/1", "bool", "255", "1/2"]
)
def test_masks_in_files_of_cellpose_are_no_cells(masks):
    with pytest.raises(InvalidArgument, match=r"numbered cells, whatever the label kind: save such a mask as TIFF"):
        read_file(saved({"masks": masks}), kind=LabelKind.LABEL_KIND_BINARY)


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/cellsparse-ran-a-pickle",)


class Getter:
    def __reduce__(self):
        return getattr, (int, "real")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(Command()), "asks for 'posix.system'; allowed: arrays, lists, dictionaries, text and numbers only"),
        (saved({"masks": Command()}), "asks for 'posix.system'"),
        (saved({"masks": Getter()}), "asks for 'builtins.getattr'"),
        (npy(b"cnumpy\nload\n(S'/etc/passwd'\ntR."), "asks for 'numpy.load'"),
        (npy(b"cnumpy\nndarray\n((I100000\nI100000\nttR."), "builds an array in an unusual way"),
        (saved({"outlines": [MASKS]}), "has no 'masks'"),
        (saved({"masks": MASKS * 0.5}), "type float64"),
        (saved({"masks": np.zeros((4, 5, 6, 7), int)}), "2D or 3D"),
        (saved({"masks": np.array([MASKS, None], object)}), "no numbers"),
        (saved({"masks": np.zeros((600, 600), np.uint16)}), "360,000 pixels; allowed: at most 192"),
        (saved([1, 2]), "not what Cellpose writes"),
        (npy(b""), "truncated or broken pickle"),
        (b"\x93NUMPY\x01", "truncated or broken .npy header"),
        (saved({"masks": MASKS})[:400], "truncated or broken pickle"),
    ],
)
def test_a_sentence_says_why_a_file_is_refused(data, words):
    with pytest.raises(RefusedError) as refused:
        label_image(data, MASKS.size)
    assert words in str(refused.value)
    assert not pathlib.Path("/tmp/cellsparse-ran-a-pickle").exists()


def test_a_process_of_its_own_bounds_memory():
    # Opcodes that ask for 16 GiB each: a memo with 2^31 places, bytes that are not there.
    for bomb in (b"\x80\x03]r\xff\xff\xff\x7f.", b"\x80\x05\x96\x00\x00\x00\x00\x04\x00\x00\x00."):
        with pytest.raises(InvalidArgument, match="asks for more memory than such a file needs"):
            read_masks(npy(bomb), shape=MASKS.shape, field="label")


def test_the_size_must_be_the_image_s():
    with pytest.raises(InvalidArgument, match="The label is 12 x 16 pixels, its image 20 x 20; both must"):
        read_masks(saved({"masks": MASKS}), shape=(20, 20), field="label")


def test_stock_cellpose_reads_ours(tmp_path):
    """What Cellpose's window and training take from the file, as their loader does."""
    label = np.where(MASKS == 2, 7, MASKS).astype(np.int32)
    label[0, 0] = -1
    path = tmp_path / "a_seg.npy"
    path.write_bytes(encode_seg(label, "a.tif"))
    content = np.load(path, allow_pickle=True).item()
    assert content["masks"].dtype == content["outlines"].dtype == np.uint16
    assert np.array_equal(np.unique(content["masks"]), [0, 1, 2])  # the window takes 1 to n only
    assert set(np.unique(content["outlines"])) == {0, 1, 2}
    assert ((content["outlines"] == 0) | (content["outlines"] == content["masks"])).all()
    assert len(content["ismanual"]) == 2
    assert content["filename"] == "a.tif"
    assert len(content["flows"]) == 5
    assert b"numpy._core" not in path.read_bytes()  # NumPy before 1.26 does not know it
    assert np.array_equal(read_masks(path.read_bytes(), shape=label.shape, field="label").label, label)
