"""Images and label files of a zip, paired."""

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.dataset_zip import find_pairs
from cellsparse_proto.v1 import common_pb2


def test_splits_are_folders():
    names = ["train/images/b.tif", "train/masks/b.png", "val/images/a.tif", "val/masks/a.tif", "train/images/", "x.txt"]
    pairs = find_pairs(names)
    assert [(pair.name, pair.split) for pair in pairs] == [("b", common_pb2.SPLIT_TRAIN), ("a", common_pb2.SPLIT_VAL)]
    assert pairs[0].label == "train/masks/b.png"


def test_without_splits_a_fifth_each_is_kept_back_the_same_way_every_time():
    names = [f"set/{folder}/i{number}.tif" for folder in ("images", "masks") for number in range(10)]
    splits = [pair.split for pair in find_pairs(names)]
    assert [splits.count(split) for split in (common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST)] == [
        6,
        2,
        2,
    ]
    assert find_pairs(names) == find_pairs(list(reversed(names)))
    (only,) = find_pairs(["images/a.tif", "masks/a.zip"])
    assert only.split == common_pb2.SPLIT_TRAIN


def test_names_become_valid_and_stay_apart():
    names = [f"{split}/{folder}/é 1.tif" for split in ("train", "test") for folder in ("images", "masks")]
    assert [pair.name for pair in find_pairs(names)] == ["train-_ 1", "test-_ 1"]


def test_what_macs_add_is_left_out():
    names = ["images/a.tif", "masks/a.tif", "__MACOSX/images/._a.tif", "images/.DS_Store", "images/._a.tif"]
    assert len(find_pairs(names)) == 1


@pytest.mark.parametrize("names", [[], ["a.tif"], ["images/a.tif", "masks/b.tif"], ["../images/a.tif"]])
def test_no_pair_is_one_sentence(names):
    with pytest.raises(InvalidArgument, match="has no image in images/"):
        find_pairs(names)


def test_two_files_of_one_name_are_refused():
    with pytest.raises(InvalidArgument, match="have the same name"):
        find_pairs(["images/a.tif", "images/a.png", "masks/a.tif"])
