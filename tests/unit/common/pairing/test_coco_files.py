"""One COCO file for many images becomes a label file for each."""

import json

from cellsparse_common.pairing.coco_files import spread
from cellsparse_common.pairing.pairs import pair_files


def coco(*names):
    images = [
        {"id": number, "file_name": f"somewhere/{name}", "height": 4, "width": 4} for number, name in enumerate(names)
    ]
    return json.dumps({"images": images, "annotations": [], "categories": []}).encode()


FILES = {
    "train/images/a.tif": b"",
    "train/images/b.tif": b"",
    "train/_annotations.coco.json": coco("a.tif", "b.tif"),
    "val/images/c.tif": b"",
    "val/masks/c.json": coco("c.tif"),
    "annotations/instances_test.json": coco("d.tif"),
    "test/images/d.tif": b"",
    "about.json": b'{"name": "no labels"}',
}


def test_each_image_gets_its_labels():
    paths, parts = spread(FILES, FILES.__getitem__)
    assert set(parts) == {"train/labels/a.json", "train/labels/b.json", "test/labels/d.json"}
    pairing = pair_files(paths)
    assert [(pair.split, pair.name, pair.label) for pair in pairing.pairs] == [
        ("train", "a", "train/labels/a.json"),
        ("train", "b", "train/labels/b.json"),
        ("val", "c", "val/masks/c.json"),
        ("test", "d", "test/labels/d.json"),
    ]
    assert json.loads(parts["train/labels/b.json"])["images"][0]["file_name"] == "somewhere/b.tif"
    assert pairing.left_out == {"about.json": "has no image"}
