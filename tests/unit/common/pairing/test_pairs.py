"""Which image goes with which label file: one rule for folders and for zip files."""

import os
import unicodedata

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.pairing.pairs import pair_files

NFC, NFD = (unicodedata.normalize(form, "Mäuse Größe é") for form in ("NFC", "NFD"))
LATIN_1 = os.fsdecode("Mäuse".encode("latin-1"))


def matched(*paths, **given):
    return {(pair.image, pair.label) for pair in pair_files(paths, **given).pairs}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.tif", "masks/a.tif"),
        ("images/a.tif", "masks/a.geojson"),
        ("images/a.tif", "masks/a.roi"),
        ("images/a.tif", "masks/a_cp_masks.tif"),
        ("images/a.tif", "masks/a_cp_masks.png"),
        ("images/a.tif", "masks/a_masks.tif"),
        ("images/a.tif", "masks/a_mask.png"),
        ("images/a.tif", "masks/a-labels.tif"),
        ("images/a.tif", "masks/a_label.tif"),
        ("images/a.tif", "masks/a_seg.npy"),
        ("images/a.tif", "masks/a.tif.geojson"),
        ("images/a.tif", "masks/a_RoiSet.zip"),
        ("images/a.ome.tif", "masks/a.tif"),
        ("images/a.tif", "masks/a.ome.tiff"),
        ("images/a.ome.tif", "masks/a_masks.ome.tif"),
        ("images/a_img.png", "masks/a.png"),
        ("images/000_img.png", "masks/000_masks.png"),
        ("images/000_img.png", "masks/000_img_cp_masks.png"),
        ("images/img_001.tif", "masks/mask_001.tif"),
        ("images/img001.tif", "masks/001.tif"),
        ("images/A.TIF", "masks/a.tif"),
        ("Images/a.tif", "Masks/a.tif"),
        ("img/a.tif", "label/a.tif"),
        ("images/a.tif", "labels/a.tif"),
        ("set/images/a.tif", "set/masks/a.tif"),
        ("deep/set/img/a.tif", "deep/set/Labels/a_label.tif"),
        ("a.tif", "masks/a.tif"),
        ("a.tif", "a_masks.tif"),
        ("a.tif", "a_mask.png"),
        ("a.ome.tif", "a_masks.tif"),
        ("a.tif", "a_seg.npy"),
        ("a.tif", "a.geojson"),
        ("a_img.tif", "a_label.tif"),
        ("images/a.tif", "images/a_masks.tif"),
        ("images/a.tif", "images/a_seg.npy"),
        ("train_images/a.tif", "train_masks/a.tif"),
        ("images/train/a.tif", "masks/train/a.tif"),
        (f"images/{NFC}.tif", f"masks/{NFD}.tif"),
        (f"images/{NFD}.tif", f"masks/{NFC}_masks.tif"),
        (f"{NFD}.tif", f"{NFC}_cp_masks.tif"),
        ("images/細胞.tif", "masks/細胞.tif"),
        ("images/клетка.tif", "masks/Клетка_mask.tif"),
        ("images/\uff21\uff22\uff11.tif", "masks/AB1.tif"),
        (f"images/{LATIN_1}.tif", f"masks/{LATIN_1}.tif"),
        (f"images/{LATIN_1}.tif", "masks/Mäuse.tif"),
        ("images/a b (1).tif", "masks/a b (1)_cp_masks.tif"),
        ("a.ome.tif", "a.ome_cp_masks.tif"),  # as Cellpose calls them
        ("a.ome.tiff", "a.ome_seg.npy"),
        ("images/a.ome.tif", "masks/a.ome_masks.ome.tif"),
        ("a.tif", "a.tif_masks.png"),
        ("a.tif_img.tif", "a_masks.tif"),
        ("images/a.tif", "ground_truth/a.tif"),
        ("images/a.tif", "Ground Truth/a.tif"),
        ("images/a.tif", "segmentations/a.tif"),
        ("images/a.tif", "cp_masks/a.tif"),
        ("images/a.tif", "RoiSets/a.zip"),
        ("images/a.tif", "rois/a.roi"),
        ("segmentation/images/a.tif", "segmentation/masks/a.tif"),  # what is around all says nothing
        ("rois/img/a.tif", "rois/label/a.tif"),
        ("labels/a.tif", "labels/a.geojson"),
    ],
)
def test_names_that_belong_together(image, label):
    assert matched(image, label) == {(image, label)}


def test_files_that_are_not_read_are_counted_where_nothing_is_left():
    with pytest.raises(
        InvalidArgument, match=r"no images and no label files, and 2 files \(a.bmp, ...\) of kinds that"
    ):
        pair_files(["a.bmp", "a_masks.bmp"])


def test_the_closest_name_wins():
    files = ["images/a.tif", "images/a_label.tif", "masks/a.tif", "masks/a_label.tif"]
    assert matched(*files) == {(files[0], files[2]), (files[1], files[3])}
    files = ["images/x.tif", "images/x.ome.tif", "masks/x.tif"]
    found = pair_files(files)
    assert [(pair.image, pair.label) for pair in found.pairs] == [("images/x.tif", "masks/x.tif")]
    assert found.left_out == {"images/x.ome.tif": "has no label file"}


def test_what_cellpose_leaves_beside_an_image():
    files = ["a.tif", "a_seg.npy", "a_cp_masks.png", "a_flows.tif", "a_outlines.txt", "a_outlines_cp_masks.png"]
    found = pair_files(files)
    assert [(pair.image, pair.label) for pair in found.pairs] == [("a.tif", "a_cp_masks.png")]
    assert found.left_out.keys() == {*files[1:2], *files[3:]}
    assert found.left_out["a_seg.npy"] == "is not used, as a_cp_masks.png holds the labels of its image"
    assert found.left_out["a_flows.tif"] == "has no label file"
    assert "unsupported kind" in found.left_out["a_outlines.txt"]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("validation", "val"),
        ("valid", "val"),
        ("Val", "val"),
        ("training", "train"),
        ("TEST", "test"),
        ("Test set", "test"),
    ],
)
@pytest.mark.parametrize("layout", ["{0}/images/{1}|{0}/masks/{1}", "images/{0}/{1}|labels/{0}/{1}"])
def test_folders_of_splits(folder, split, layout):
    files = layout.format(folder, "a.tif").split("|") + layout.format("train", "b.tif").split("|")
    assert [(pair.name, pair.split) for pair in pair_files(files).pairs if pair.name == "a"] == [("a", split)]


def test_files_beside_folders_of_splits_are_drawn_for_the_others_or_refused():
    files = [f"{where}{kind}/{n}.tif" for kind in ("images", "masks") for n in range(5) for where in ("", "test/")]
    splits = [pair.split for pair in pair_files(files).pairs]
    assert (splits.count("test"), set(splits)) == (5, {"train", "val", "test"})
    with pytest.raises(InvalidArgument, match=r"images/a\.tif lies beside train/"):
        pair_files(["images/a.tif", "masks/a.tif", "train/images/a.tif", "train/masks/a.tif"])


def test_nothing_is_left_out_without_a_reason():
    files = ["images/a.tif", "masks/a.tif", "images/b.tif", "masks/c.tif", "holdout/images/d.tif", "notes.txt"]
    files += ["images/.hidden", "__MACOSX/images/._a.tif", f"images/{'n' * 300}.tif", "images/e.geojson"]
    found = pair_files(files)
    reasons = found.left_out
    assert reasons["images/b.tif"] == "has no label file"
    assert reasons["masks/c.tif"] == reasons["images/e.geojson"] == "has no image"
    assert reasons["holdout/images/d.tif"].startswith("lies in a folder that is none of")
    assert "unsupported kind" in reasons["notes.txt"]
    assert "255" in reasons[files[-2]]
    assert len(reasons) == 6


@pytest.mark.parametrize(
    "files",
    [
        ["images/a.tif", "images/a.png", "masks/a.tif"],
        ["images/a.tif", "masks/a.tif", "masks/a.png"],
        ["a.tif", "a_masks.tif", "a_label.tif"],
        ["images/A.tif", "images/a.TIF", "masks/a_masks.tif"],
        [f"images/{NFC}.png", f"images/{NFD}.tif", f"masks/{NFC}_masks.tif"],
    ],
)
def test_two_files_for_one_are_refused_by_name(files):
    with pytest.raises(InvalidArgument, match="keep one of them"):
        pair_files(files)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "no images and no label files"),
        (["images/a.tif", "masks/b.tif"], "1 image (images/a.tif) and 1 label file (masks/b.tif)"),
        (["a.tif", "a.png"], "2 images (a.tif, ...) and no label files"),
        (["one/images/a.tif", "one/masks/a.tif", "two/images/a.tif"], "3 files in other folders"),
        (["../images/a.tif"], "No image in here has a label file"),
    ],
)
def test_no_pair_is_one_sentence_that_says_how_names_should_be(files, words):
    with pytest.raises(InvalidArgument) as failure:
        pair_files(files, where="here")
    assert words in failure.value.message.replace("(a.png, ...)", "(a.tif, ...)")
    assert "NAME_masks.tif" in failure.value.message


def test_items_get_valid_and_unique_names():
    stems = [NFC, "細胞一", "細胞二", "-b", "c(1)", "c[1]"]
    files = [f"train/{kind}/{stem}.tif" for kind in ("images", "masks") for stem in stems]
    found = [pair.name for pair in pair_files([*files, "test/images/-b.tif", "test/masks/-b.tif"]).pairs]
    assert found == ["train--b", "M_use Gr__e _", "c_1_", "c_1_-2", "___", "___-2", "test--b"]
    assert pair_files(files).pairs == pair_files(reversed(files)).pairs


def test_long_names_take_no_time():
    stem = "_" * 60_000
    with pytest.raises(InvalidArgument):
        pair_files([f"images/{stem}.tif", f"masks/{stem}_masks.tif"])
