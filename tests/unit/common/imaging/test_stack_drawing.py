"""Outlines on the planes of a stack: which are one cell, and what is refused."""

import io
import json
import zipfile

import numpy as np
import pytest
import roifile

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.labels import read_label_file
from cellsparse_common.imaging.vector_labels import decode_vector_labels

SHAPE = (4, 20, 30)


def feature(x, z, name=None, kind="detection", **properties):
    ring = [[x, 2], [x + 3, 2], [x + 3, 5], [x, 5], [x, 2]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    if z is not None:
        geometry["plane"] = {"c": -1, "z": z, "t": 0}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind, "name": name, **properties}}


def roi(x, name, **position):
    made = roifile.ImagejRoi.frompoints(np.array([[x, 2], [x + 3, 2], [x + 3, 5], [x, 5]], np.int32), name=name)
    for key, value in position.items():
        setattr(made, key, value)
    return made.tobytes()


def zipped(*rois):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, content in enumerate(rois):
            archive.writestr(f"{number}.roi", content)
    return buffer.getvalue()


def draw(*shapes):
    data = zipped(*shapes) if isinstance(shapes[0], bytes) else json.dumps(list(shapes)).encode()
    return decode_vector_labels(data, shape=SHAPE)


def cells(label):
    """Planes of each cell."""
    return [sorted({int(z) for z in np.argwhere(label == n)[:, 0]}) for n in range(1, label.max() + 1)]


def test_outlines_of_one_number_are_one_cell_and_others_are_cells_of_their_own():
    label = draw(feature(10, 2, "7"), feature(2, 1, "12"), feature(2, 2, "12"), feature(20, 3), feature(20, 1, "x"))
    assert cells(label) == [[2], [1, 2], [3], [1]]  # 7, 12, and the others in their order
    assert (label[1, 2:5, 2:5] == 2).all()
    assert label[0].max() == -1
    # Annotations are drawn by people, and two of them may have the same name.
    assert cells(draw(feature(2, 0, "1", kind="annotation"), feature(2, 1, "1", kind="annotation"))) == [[0], [1]]


def test_qupath_leaves_out_the_first_plane():
    assert cells(draw(feature(2, None, "1"), feature(2, 1, "1"))) == [[0, 1]]


def test_rois_say_their_slice():
    label = draw(roi(2, "3", z_position=2), roi(2, "3", position=3), roi(10, "3-4", position=4))
    assert cells(label) == [[1, 2, 3]]
    label = draw(roi(2, "0003-0020", z_position=1), roi(2, "0003-0020", z_position=2))  # as ImageJ calls them: y and x
    assert cells(label) == [[0], [1]]
    label = draw(roi(2, "1", z_position=1), roi(9, "background", z_position=3))
    assert set(np.unique(label[2])) == {-1, 0}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([roi(2, "1")], "ROI '0.roi' does not say its plane, and its image is a stack of 4 planes"),
        ([roi(2, "1", position=5)], r"is on plane 4 \(from 0\), and its image is a stack of 4 planes"),
        ([feature(2, 4)], r"feature 1 is on plane 4 \(from 0\)"),
        ([feature(2, "a")], "feature 1 is on z 'a'; allowed: 0 or more"),
        ([feature(2, 1.5)], "feature 1 is on z '1.5'; allowed: 0 or more"),
        ([feature(2, 1, "5"), feature(9, 1, "5")], "feature 1 and feature 2 are both called 5 on plane 1"),
        ([feature(200, 1)], "feature 1 lies outside the image of 20 x 30 pixels"),
        ([roi(2, "1", z_position=1, t_position=1), roi(2, "1", z_position=1, t_position=2)], "several time points"),
    ],
)
def test_outlines_that_do_not_fit_a_stack_are_refused(shapes, words):
    with pytest.raises(InvalidArgument, match=words):
        draw(*shapes)


def test_what_is_left_out_is_told():
    region = feature(0, 1, kind="annotation", classification="Region*")
    read = read_label_file(json.dumps([region, feature(2, 1)]).encode(), shape=SHAPE, max_pixels=10**4)
    assert read.skipped == 1
    assert "Region*" in read.notes[0]
    with pytest.raises(InvalidArgument, match="feature 1 is of class"):
        draw(region)
