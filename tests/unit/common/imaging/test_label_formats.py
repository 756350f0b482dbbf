"""The law of label formats: exported and imported, labels are the same, or the writer says what it cannot hold."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.label_formats import FORMATS, LabelOutput, encode, file_name, name_of
from cellsparse_common.imaging.labels import decode_labels

FLAT = arrays.arrays(np.int32, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.integers(-1, 4))
STACKS = arrays.arrays(
    np.int32, st.tuples(st.just(2), st.integers(2, 6), st.integers(2, 6)), elements=st.integers(-1, 4)
)
KEPT = ("tiff", "ome-tiff", "ome-zarr", "ome-zarr-0.4")
"""Formats that keep the numbers of cells."""
EXACT = (*KEPT, "coco", "geojson", "roi")


def sparse(label):
    """Whether a pixel is labelled and another is not: dense labels may look like masks of classes."""
    return (label >= 0).any() and (label == -1).any()


def came_back(name, label):
    data = encode(name, LabelOutput(label=label, background=True))
    return decode_labels(data, shape=label.shape, max_pixels=label.size, partial=True)


def renumbered(label):
    """Outlines have no numbers: cells are numbered in their order."""
    return np.where(label > 0, np.searchsorted(np.unique(label[label > 0]), label) + 1, label)


@settings(max_examples=30, deadline=None)
@given(FLAT.filter(sparse), st.sampled_from(EXACT))
def test_labels_come_back(label, name):
    wanted = label if name in KEPT else renumbered(label)
    label_back = came_back(name, label)
    assert np.array_equal(label_back, wanted)


@settings(max_examples=3, deadline=None)  # each takes a process
@given(st.one_of(FLAT, STACKS).filter(sparse))
def test_cellpose_files_come_back(label):
    assert np.array_equal(came_back("seg", label), label)


@settings(max_examples=30, deadline=None)
@given(STACKS.filter(sparse), st.sampled_from(KEPT))
def test_stacks_come_back(label, name):
    assert np.array_equal(came_back(name, label), label)


@settings(max_examples=30, deadline=None)
@given(STACKS.filter(sparse), st.sampled_from(["geojson", "roi"]))
def test_outlines_of_stacks_come_back(label, name):
    assert np.array_equal(came_back(name, label), renumbered(label))


@settings(max_examples=20, deadline=None)
@given(st.one_of(FLAT, STACKS), st.sampled_from(["ome-zarr", "ome-zarr-0.4"]))
def test_ome_zarr_is_read_by_the_zarr_package(tmp_path_factory, label, name):
    path = tmp_path_factory.mktemp("zarr") / "labels.zip"
    path.write_bytes(encode(name, LabelOutput(label=label, spacing=(0.5,) * label.ndim)))
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        about = group.attrs.asdict().get("ome", group.attrs.asdict())
        assert "image-label" in about
        assert about["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.5] * label.ndim
        assert np.array_equal(group["0"][:], label)


def test_large_ome_zarr_has_smaller_levels(tmp_path):
    label = np.arange(600 * 1100, dtype=np.int32).reshape(600, 1100)
    (tmp_path / "a.zip").write_bytes(encode("ome-zarr", LabelOutput(label=label)))
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="r") as store:
        group = zarr.open_group(store, mode="r")
        assert np.array_equal(group["0"][:], label)
        assert np.array_equal(group["1"][:], label[::2, ::2])


@pytest.mark.parametrize("name", FORMATS)
def test_same_labels_give_the_same_bytes(name):
    label = np.zeros((20, 30), np.int32)
    label[3:9, 4:8] = 5
    assert encode(name, LabelOutput(label=label)) == encode(name, LabelOutput(label=label))


def test_a_writer_says_what_it_cannot_hold():
    with pytest.raises(InvalidArgument, match="coco holds 2D images only, and these labels are a stack of 3 planes"):
        encode("coco", LabelOutput(label=np.zeros((3, 4, 4), np.int32)))
    with pytest.raises(InvalidArgument, match="The format is 'png'; allowed: tiff, geojson"):
        encode("png", LabelOutput(label=np.zeros((4, 4), np.int32)))


def test_names_of_formats_and_files():
    assert [name_of(found.number) for found in FORMATS.values()] == list(FORMATS)
    assert file_name("tiff", "a.b.png") == "a.b-labels.tif"
    assert file_name("seg", "a.ome.tif") == "a_seg.npy"
    assert file_name("ome-tiff", "a.ome.tif", "") == "a.ome.tif"
