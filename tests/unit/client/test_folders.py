import os
from pathlib import Path

import pytest

from cellsparse.errors import InvalidArgument
from cellsparse.folders import parse_fractions, read_folder, read_pair_of_folders
from cellsparse.sources import read_all
from cellsparse_common.pairing.splits import split_names


def fill(folder, images, masks):
    for kind, names in (("images", images), ("masks", masks)):
        (folder / kind).mkdir(parents=True)
        for name in names:
            (folder / kind / name).write_bytes(b"x")


def test_flat_folder_pairs_by_stem_and_reports_the_rest(tmp_path):
    fill(tmp_path, ["a.tif", "b.png", "c.TIFF", "lonely.tif", "notes.txt"], ["a.png", "b.geojson", "c.zip", "x.tif"])
    found = read_folder(tmp_path)
    assert sorted(item.name for item in found.items) == ["a", "b", "c"]
    assert [path.name for path in found.unmatched] == ["lonely.tif", "notes.txt", "x.tif"]
    assert {item.split for item in found.items} == {"train", "val", "test"}


def test_split_folders_keep_their_splits_and_make_names_unique(tmp_path):
    fill(tmp_path / "train", ["a.tif", "b.tif"], ["a.tif", "b.tif"])
    fill(tmp_path / "test", ["a.tif"], ["a.tif"])
    found = read_folder(tmp_path)
    assert [(item.name, item.split) for item in found.items] == [
        ("train-a", "train"),
        ("b", "train"),
        ("test-a", "test"),
    ]


def test_names_that_a_dataset_does_not_take_are_changed(tmp_path):
    fill(tmp_path, ["zelle ü(1).tif", "-b.tif"], ["zelle ü(1).tif", "-b.tif"])
    assert sorted(item.name for item in read_folder(tmp_path).items) == ["_b", "zelle __1_"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 101])
def test_splits_are_the_same_every_time_and_none_is_empty(count):
    names = split_names(count, (0.6, 0.2, 0.2))
    assert names == split_names(count, (0.6, 0.2, 0.2))
    assert len(names) == count
    assert names.count("train") >= 1
    if count >= 3:
        assert {"val", "test"} <= set(names)
    if count >= 10:
        assert abs(names.count("train") - 0.6 * count) <= 1


def test_a_split_without_a_share_stays_empty():
    assert set(split_names(10, (1.0, 0.0, 0.0))) == {"train"}


@pytest.mark.parametrize("text", ["", "0.5,0.5", "1,1,1", "a,b,c", "0,0.5,0.5", "-1,1,1"])
def test_bad_fractions(text):
    with pytest.raises(InvalidArgument, match=r"0\.6,0\.2,0\.2"):
        split_names(3, parse_fractions(text))


def test_bad_folders(tmp_path):
    with pytest.raises(InvalidArgument, match="not a folder"):
        read_folder(tmp_path / "no")
    with pytest.raises(InvalidArgument, match="no images and no label files"):
        read_folder(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tif").touch()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(InvalidArgument, match="same name"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/null/x", "/proc/1/mem"])
def test_folders_that_cannot_be(name):
    with pytest.raises(InvalidArgument, match=r"not a folder|cannot be read"):
        read_folder(Path(name))


def test_two_folders_and_one_for_both(tmp_path):
    fill(tmp_path, ["a.tif"], ["a_masks.tif"])
    for name in ("b.tif", "b_cp_masks.png"):
        (tmp_path / name).touch()
    (item,) = read_pair_of_folders(tmp_path / "images", tmp_path / "masks").items
    assert (item.image, item.label) == (tmp_path / "images" / "a.tif", tmp_path / "masks" / "a_masks.tif")
    with pytest.raises(InvalidArgument, match="No image in"):
        read_pair_of_folders(tmp_path / "images", tmp_path / "images")


def test_names_whose_bytes_are_no_utf8(tmp_path):
    name = os.fsdecode("M\xe4use.tif".encode("latin-1"))
    fill(tmp_path, [name], [name])
    (item,) = read_folder(tmp_path).items
    assert item.name == "M_use"
    assert item.image.read_bytes() == b"x"


def test_folders_that_lead_into_themselves_end(tmp_path):
    fill(tmp_path, ["a.tif"], ["a.tif"])
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    assert [item.name for item in read_folder(tmp_path).items] == ["a"]


def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path):
    """A pipe that nobody writes to would block for ever, a device has no end."""
    pipe = tmp_path / "a.tif"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(InvalidArgument, match=f"{path} cannot be read: it is a {kind}, not a file"):
            read_all(path)
    fill(tmp_path, ["b.tif"], ["b.tif"])
    os.mkfifo(tmp_path / "masks" / "all.json")
    with pytest.raises(InvalidArgument, match=r"all\.json cannot be read: it is a pipe, not a file"):
        read_folder(tmp_path)
    read, write = os.pipe()
    os.write(write, b"pixels")
    os.close(write)
    assert read_all(Path(f"/dev/fd/{read}")) == b"pixels"  # as a shell gives it for <(command)
    os.close(read)
