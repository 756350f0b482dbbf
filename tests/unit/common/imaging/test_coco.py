"""COCO JSON: run lengths as pycocotools counts them, polygons, crowds, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as stock

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import coco, run_lengths

SHAPE = (10, 12)


def file(*annotations, images=1, categories=({"id": 3, "name": "nucleus"}, {"id": 4, "name": "Background"})):
    made = [{"id": at, "file_name": f"x/{at}.png", "height": 10, "width": 12} for at in range(1, images + 1)]
    filled = [{"image_id": 1, "category_id": 3, "iscrowd": 0, **entry} for entry in annotations]
    return json.dumps({"images": made, "annotations": filled, "categories": list(categories)}).encode()


def read(*annotations, **more):
    return draw(file(*annotations, **more)).label


def draw(data, shape=SHAPE):
    return coco.draw_annotations(data, shape=shape, field="label")


def box(x, y, size, **more):
    return {"segmentation": [[x, y, x + size, y, x + size, y + size, x, y + size]], **more}


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_run_lengths_are_those_of_pycocotools(mask):
    theirs = stock.encode(np.asfortranarray(mask))["counts"].decode()
    for value, starts, ends in run_lengths.runs_by_value(mask):
        if value:
            assert run_lengths.compress(run_lengths.counts_of(starts, ends, mask.size)) == theirs
    inside = np.zeros(mask.size, np.uint8)
    inside[run_lengths.inside(theirs, mask.size)] = 1
    assert np.array_equal(inside.reshape(mask.shape[::-1]).T, mask)


def test_pycocotools_reads_ours():
    label = np.full(SHAPE, 0, np.int32)
    label[1:4, 2:6], label[5:, :3] = 7, -1
    document = json.loads(coco.encode_coco(label, "a.tif"))
    cell, crowd = document["annotations"]
    assert np.array_equal(stock.decode(cell["segmentation"]), label == 7)
    assert (cell["area"], cell["bbox"], cell["iscrowd"]) == (12, [2, 1, 4, 3], 0)
    assert np.array_equal(stock.decode(crowd["segmentation"]), label == -1)
    assert crowd["iscrowd"] == 1


def test_polygons_plain_counts_background_and_crowds():
    label = read(
        {"segmentation": [[1, 1, 5, 1, 5, 4, 1, 4], [7, 7, 9, 7, 9, 9, 7, 9]]},
        {"segmentation": {"size": [10, 12], "counts": [0, 5, 115]}, "iscrowd": 1},
        {"segmentation": [[0, 0, 12, 0, 12, 10, 0, 10]], "category_id": 4},
        {"segmentation": [[4, 3, 8, 3, 8, 6, 4, 6]]},
    )
    wanted = np.zeros(SHAPE, np.int32)
    wanted[3:6, 4:8] = 2
    wanted[1:4, 1:5] = wanted[7:9, 7:9] = 1
    assert np.array_equal(label, wanted)
    assert (read({"segmentation": [[0, 0, 12, 0, 12, 3, 0, 3]], "ignore": 1})[:3] == -1).all()


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"segmentation": [[1, 1, 5, 1]]}, "annotation 1 covers no pixel"),
        ({"segmentation": [[1]]}, "annotation 1 has no segmentation"),
        ({"segmentation": []}, "annotation 1 has no segmentation"),
        ({"bbox": [1, 2, 3, 4]}, "annotation 1 has no segmentation"),
        ({"segmentation": [[1, 1, 5, 1, 5, "4"]]}, "annotation 1 has no segmentation"),
        ({"segmentation": [[20, 1, 25, 1, 25, 4]]}, "annotation 1 lies outside the image of 10 x 12 pixels"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, "run lengths of size"),
        ({"segmentation": {"size": [10, 12], "counts": [5, 5]}}, "cover 10 of 120 pixels"),
        ({"segmentation": {"size": [10, 12], "counts": "!!"}}, "no run lengths"),
        ({"segmentation": {"size": [10, 12], "counts": "~"}}, "no run lengths|cut off"),
        ({"segmentation": {"size": [10, 12], "counts": [-1, 121]}}, "no run lengths"),
        ({"segmentation": {"size": [10, 12], "counts": [120]}}, "covers no pixel"),
    ],
)
def test_a_sentence_names_the_annotation(annotation, words):
    with pytest.raises(InvalidArgument, match=words):
        read(annotation)


def test_files_of_several_images_are_split_by_name():
    data = file({"segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]], "image_id": 2}, images=3)
    with pytest.raises(InvalidArgument, match="a COCO file of 3 images"):
        draw(data)
    parts = coco.split(coco.parse(data, "label"), "label")
    assert list(parts) == ["1.png", "2.png", "3.png"]
    counts = [(draw(part).label > 0).sum() for part in parts.values()]
    assert counts == [0, 12, 0]


def test_other_files_are_no_coco():
    assert not coco.is_coco(b'{"type": "FeatureCollection", "features": []}')
    assert not coco.is_coco(b'[{"annotations": [], "images": []}]')
    with pytest.raises(InvalidArgument, match="no list of annotations"):
        coco.parse(b'{"images": [], "annotations": 3}', "label")
    with pytest.raises(InvalidArgument, match="truncated or broken COCO file"):
        coco.parse(b'{"images": [], "annotations": [', "label")
    with pytest.raises(InvalidArgument, match="is 10 x 12 pixels, its image 5 x 5"):
        draw(file(), shape=(5, 5))


def test_annotations_without_a_pixel_are_left_out():
    """One of many must not make the whole file useless."""
    bad = [
        {"segmentation": [[1, 1, 5, 1, 9, 1]]},
        {"segmentation": [[1, 1, 5, 1]]},
        {"segmentation": {"size": [10, 12], "counts": [120]}},
        box(2, 2, 2),  # under the first cell
        box(1, 1, 4),
    ]
    found = draw(file(box(1, 1, 4), *bad, {"segmentation": [box(6, 6, 2)["segmentation"][0], [9, 9, 10, 9]]}))
    wanted = np.zeros(SHAPE, np.int32)
    wanted[1:5, 1:5], wanted[6:8, 6:8] = 1, 2
    assert np.array_equal(found.label, wanted)
    assert [each.name for each in found.skipped] == [f"annotation {number}" for number in range(2, 7)]


def test_frames_and_regions_are_no_cells():
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "Region"}, {"id": 3, "name": "test 2"}]
    frame = {"segmentation": [[0, 0, 12, 0, 12, 10, 0, 10]], "category_id": 1}
    for order in (1, -1):
        entries = [frame, box(1, 1, 4, category_id=1), box(0, 0, 9, category_id=2), box(0, 0, 9, category_id=3)][
            ::order
        ]
        found = draw(file(*entries, categories=categories))
        assert (found.label == 1).sum() == found.label.sum() == 16
        assert len(found.skipped) == 3
    with pytest.raises(InvalidArgument, match="annotation 1 covers the whole image, so it is the frame around it"):
        read(frame)
    everything = np.full(SHAPE, 1, np.int32)
    assert np.array_equal(draw(coco.encode_coco(everything, "a.png")).label, everything)  # ours


def test_annotations_of_another_image_are_not_drawn():
    """Files of one image cut out of a larger one still list the others."""
    found = draw(file(box(1, 1, 4), box(6, 1, 4, image_id=2), box(6, 6, 2, image_id="1"), box(1, 6, 2, image_id=1.0)))
    assert np.unique(found.label).tolist() == [0, 1, 2, 3]
    assert found.notes == ["annotation 2 is of another image (image_id)"]
    for images in (1, 2):
        foreign = file(box(1, 1, 4, image_id=7), images=images)
        with pytest.raises(InvalidArgument, match="none of whose annotations has the image_id of one of its images"):
            draw(foreign) if images == 1 else coco.split(coco.parse(foreign, "a.json"), "a.json")


def test_flags_and_sizes_as_text():
    assert read(box(1, 1, 4, iscrowd="0", ignore="false")).max() == 1
    assert read(box(1, 1, 4, iscrowd="1")).min() == read(box(1, 1, 4, ignore=True)).min() == -1
    data = json.loads(file(box(1, 1, 4)))
    data["images"][0] |= {"height": "10", "width": 12.0}
    assert draw(json.dumps(data).encode()).label.max() == 1
