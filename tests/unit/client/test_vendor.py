"""Microscopes' own files: what is asked of bioio's readers, and what is said without them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import cellsparse
from cellsparse import Client, vendor
from cellsparse.choices import Choice, chosen_items, chosen_parts
from cellsparse.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from cellsparse.folders import read_folder
from cellsparse_common.imaging.images import decode_image

PIXELS = np.arange(2 * 3 * 2 * 4 * 8 * 9, dtype=np.uint16).reshape(2, 3, 2, 4, 8, 9)


class Reader:
    """Answers as bioio's readers do: two scenes, each of axes TCZYX."""

    def __init__(self, path):
        if Path(path).read_bytes() != b"good":
            raise ValueError("no header.\nmore")
        self.scenes, self._scene = ("first", "second"), 0
        self.dims = SimpleNamespace(order="TCZYX", shape=PIXELS.shape[1:])
        self.dtype = PIXELS.dtype
        self.channel_names = ["DAPI", "GFP"]
        self.physical_pixel_sizes = SimpleNamespace(Z=2.0, Y=0.5, X=0.25)

    def set_scene(self, number):
        self._scene = number

    def get_image_data(self, order, T=0):  # noqa: N803 - bioio's name
        return PIXELS[self._scene, T].transpose(["CZYX".index(axis) for axis in order])


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio_czi", SimpleNamespace(Reader=Reader))
    path = tmp_path / "cells.CZI"
    path.write_bytes(b"good")
    return path


def test_chosen_parts_of_a_file_are_read(file):
    parts = dict(chosen_parts(file, Choice(series=1, first=1, end=3), 2**20))
    assert list(parts) == ["-t001", "-t002"]
    part = parts["-t002"]
    assert (part.axes, part.spacing, part.channels) == ("ZYXC", (2.0, 0.5, 0.25), ("DAPI", "GFP"))
    np.testing.assert_array_equal(part.array, np.moveaxis(PIXELS[1, 2], 0, -1))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(), r"holds 2 images \(0: first, 1: second\); choose one of them with --series"),
        (Choice(series=2), "choose one of them with --series"),
        (Choice(series=0), "is a time series of 3 points; choose some with --time"),
        (Choice(series=0, first=3), r"has 3 time point\(s\), so that time 3 does not exist"),
    ],
)
def test_what_is_not_chosen_is_asked_for(file, choice, words):
    with pytest.raises(InvalidArgument, match=words):
        list(chosen_parts(file, choice, 2**20))


def test_broken_and_large_files_are_refused(file):
    with pytest.raises(ResourceExhausted, match="8 x 9"):
        list(chosen_parts(file, Choice(series=0, first=0), 50))
    file.write_bytes(b"bad")
    with pytest.raises(InvalidArgument, match=r"cells.CZI cannot be read as a CZI file: no header\.$"):
        list(chosen_parts(file, Choice(), 2**20))


def test_files_of_a_folder_are_paired_and_sent_as_images(file):
    file.with_name("cells_masks.png").write_bytes(b"labels")
    pairs = read_folder(file.parent)
    assert not pairs.left_out
    (item,) = chosen_items(pairs.items, Choice(series=0, first=0, end=1, single=True), lambda: 2**20)
    assert (item.name, item.axes, item.channels) == ("cells", "ZYXC", ("DAPI", "GFP"))


class Flat(Reader):
    """One 2D image of two channels."""

    def __init__(self, path):
        super().__init__(path)
        self.scenes = ("only",)
        self.dims = SimpleNamespace(order="CYX", shape=(2, 8, 9))

    def get_image_data(self, order):
        return PIXELS[0, 0, :, 0].transpose(["CYX".index(axis) for axis in order])


def test_the_sdk_reads_them_as_the_commands_do(file, fake, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio_lif", SimpleNamespace(Reader=Flat))
    flat = tmp_path / "flat.lif"
    flat.write_bytes(b"good")
    pixels, label = np.moveaxis(PIXELS[0, 0, :, 0], 0, -1), np.zeros((8, 9), np.int16)
    with Client() as client:
        client.create_dataset("d", [("a", "train", flat, label)])
        client.predict("m", str(flat), channels=["GFP", "DAPI"])
        client.add_project_image("pr-1", flat, spacing=(1, 1))
        client.add_project_image("pr-1", file, series=1, time=2, z=3)
        client.add_project_image("pr-1", pixels, channels=("x", "y"), name="array")
        client.add_project_image("pr-1", cellsparse.Stored("plate/a.zarr", z=2), time=1)
        client.create_dataset("d", [("a", "train", cellsparse.Stored("plate/a.zarr", time=3), label)])
        (tmp_path / "bad.lif").write_bytes(b"no")
        bad = [("b", "train", tmp_path / "none.tif", label), ("c", "train", tmp_path / "bad.lif", label)]
        with pytest.raises(InvalidArgument, match=r"(?s)2 faults.*none\.tif cannot be read.*bad\.lif cannot be read"):
            client.create_dataset("d", bad)
    messages, _ = fake.state.uploads[0]
    np.testing.assert_array_equal(decode_image(messages[2].chunk, max_pixels=100).array, pixels)
    assert list(messages[1].file.channels) == ["DAPI", "GFP"]
    assert decode_image(fake.state.predicted[0].image, max_pixels=100).channels == ("DAPI", "GFP")
    (flat_header, flat_file), (part_header, part), (array_header, _), (stored, nothing) = fake.state.added
    assert (stored.name, stored.stored, stored.time, stored.z, nothing) == ("a.zarr", "plate/a.zarr", 1, 2, b"")
    messages, _ = fake.state.uploads[1]
    assert (messages[1].file.stored, messages[1].file.time, messages[2].file.role) == ("plate/a.zarr", 3, 2)
    assert (flat_header.name, list(flat_header.spacing)) == ("flat.lif", [1, 1])
    assert decode_image(flat_file, max_pixels=100).channels == ("DAPI", "GFP")
    assert not part_header.HasField("series")  # it is chosen here
    np.testing.assert_array_equal(decode_image(part, max_pixels=100).array, np.moveaxis(PIXELS[1, 2, :, 3], 0, -1))
    assert (array_header.name, list(array_header.channels)) == ("array", ["x", "y"])


@pytest.mark.parametrize("ending", vendor.READERS)
def test_without_the_extra_one_sentence_names_it(tmp_path, monkeypatch, ending):
    monkeypatch.setitem(sys.modules, vendor.READERS[ending], None)
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"")
    with pytest.raises(FailedPrecondition, match=r"pip install 'cellsparse\[vendor\]'"):
        list(chosen_parts(path, Choice(), 2**20))


def test_a_real_file_of_zeiss(tmp_path):
    """Runs where the extra is installed."""
    pytest.importorskip("bioio_czi")
    czi = pytest.importorskip("pylibCZIrw.czi")
    path = tmp_path / "real.czi"
    planes = np.random.default_rng(0).integers(0, 4000, (2, 3, 40, 50)).astype(np.uint16)
    with czi.create_czi(str(path)) as document:
        for c, z in np.ndindex(2, 3):
            document.write(data=planes[c, z][..., None], plane={"C": c, "Z": z, "T": 0})
        document.write_metadata("real", channel_names={0: "DAPI", 1: "GFP"}, scale_x=2.5e-7, scale_y=5e-7, scale_z=2e-6)
    ((_, image),) = chosen_parts(path, Choice(), 2**20)
    assert (image.axes, image.channels) == ("ZYXC", ("DAPI", "GFP"))
    assert image.spacing == pytest.approx((2, 0.5, 0.25))
    np.testing.assert_array_equal(image.array, np.moveaxis(planes, 0, -1))
