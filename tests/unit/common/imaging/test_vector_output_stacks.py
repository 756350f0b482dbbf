"""Outlines of stacks: one per cell and plane, which say their plane and draw exactly its pixels."""

import io
import json
import zipfile

import numpy as np
import pytest
import roifile

from cellsparse_common.errors import ResourceExhausted
from cellsparse_common.imaging import outlines
from cellsparse_common.imaging.vector_labels import decode_vector_labels
from cellsparse_common.imaging.vector_output import encode_geojson, encode_rois

LABEL = np.zeros((11, 9, 12), np.int32)
LABEL[1:4, 2:6, 2:6] = 1
LABEL[2, 3, 3] = 0  # a hole in one plane
LABEL[3:11, 5:8, 8:11] = 12


def test_geojson_names_the_plane():
    features = json.loads(encode_geojson(LABEL))["features"]
    found = sorted((int(feature["properties"]["name"]), feature["geometry"]["plane"]["z"]) for feature in features)
    assert found == [(1, z) for z in range(1, 4)] + [(12, z) for z in range(3, 11)]
    for z, plane in enumerate(LABEL):
        here = [feature for feature in features if feature["geometry"]["plane"] == {"c": -1, "z": z, "t": 0}]
        if here:
            drawn = decode_vector_labels(json.dumps(here).encode(), shape=plane.shape)
            np.testing.assert_array_equal(drawn > 0, plane > 0)


def test_rois_stand_at_their_slice():
    data = encode_rois(LABEL)
    assert data == encode_rois(LABEL)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        rois = {name: archive.read(name) for name in names}
    assert {"01-02.roi", "12-11.roi"} < set(names)
    assert len(names) == len(set(names)) == 3 + 8
    for name, content in rois.items():
        roi = roifile.ImagejRoi.frombytes(content)
        number, position = (int(part) for part in name.removesuffix(".roi").split("-"))
        assert (roi.name, roi.position, roi.z_position) == (str(number), position, position)
        drawn = decode_vector_labels(content, shape=LABEL.shape[1:])
        np.testing.assert_array_equal(drawn > 0, LABEL[position - 1] == number)


def test_the_bound_holds_for_all_planes_together(monkeypatch):
    sides = sum(len(walk_sides(plane)) for plane in LABEL)
    monkeypatch.setattr(outlines, "MAX_SIDES", sides)
    assert encode_geojson(LABEL)
    monkeypatch.setattr(outlines, "MAX_SIDES", sides - 1)
    with pytest.raises(ResourceExhausted, match=f"follow {sides} sides"):
        encode_geojson(LABEL)


def walk_sides(plane):
    padded = np.pad(plane, 1)
    places = np.argwhere(padded > 0)
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(y, x) for y, x in places for dy, dx in steps if padded[y, x] != padded[y + dy, x + dx]]
