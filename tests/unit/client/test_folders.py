import pytest

from cellsparse.errors import InvalidArgument
from cellsparse.folders import parse_fractions, read_folder, split_names


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
    with pytest.raises(InvalidArgument, match="neither images/"):
        read_folder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InvalidArgument, match="masks is not a folder"):
        read_folder(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(InvalidArgument, match="No file in"):
        read_folder(tmp_path)
    for name in ("a.tif", "a.png"):
        (tmp_path / "images" / name).touch()
    with pytest.raises(InvalidArgument, match="same name"):
        read_folder(tmp_path)
