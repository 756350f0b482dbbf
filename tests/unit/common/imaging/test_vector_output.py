"""Outlines for QuPath and ImageJ: read back, they are the same pixels."""

import io
import json
import zipfile

import numpy as np
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from unit.common.scoring.test_matching import DSB2018

from cellsparse_common.errors import ResourceExhausted
from cellsparse_common.imaging import outlines
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.outlines import label_outlines
from cellsparse_common.imaging.vector_labels import decode_vector_labels
from cellsparse_common.imaging.vector_output import encode_geojson, encode_rois

ENCODERS = [encode_geojson, encode_rois]


def drawn(data, shape):
    return np.maximum(decode_vector_labels(data, shape=shape), 0)


def area(loop):
    x, y = np.array(loop).T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def consecutive(label):
    return np.searchsorted(np.unique(np.append(label, 0)), label).astype(np.int32)


@settings(max_examples=200)
@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_any_labels_come_back_pixel_for_pixel(values):
    label = consecutive(values)
    for outline in label_outlines(label):
        pixels = sum(area(loop) for polygon in outline.polygons for loop in polygon)
        assert pixels == (label == outline.number).sum()
        for polygon in outline.polygons:
            assert [area(loop) > 0 for loop in polygon] == [True] + [False] * (len(polygon) - 1)
            assert all(len(set(loop)) == len(loop) >= 4 for loop in polygon)  # else no tool calls it valid
    if label.any():
        for encode in ENCODERS:
            np.testing.assert_array_equal(drawn(encode(label), label.shape), label)


@pytest.mark.parametrize("encode", ENCODERS)
def test_real_nuclei_come_back_pixel_for_pixel(encode):
    masks = sorted((DSB2018 / "val" / "masks").glob("*.tif"))[:8]
    if not masks:
        pytest.skip("the DSB2018 data is not there")
    for mask in masks:
        label = consecutive(decode_image(mask.read_bytes(), max_pixels=2**26, labels=True).array)
        data = encode(label)
        assert data == encode(label.astype(np.uint16))
        np.testing.assert_array_equal(drawn(data, label.shape), label)


RING_AND_ISLAND = np.array(
    [
        [1, 1, 1, 1, 0, 2],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 1, 1, 0, 2],
        [1, 1, 1, 0, 0, 2],
    ],
    np.int32,
)


def test_geojson_is_what_qupath_imports():
    document = json.loads(encode_geojson(RING_AND_ISLAND))
    assert document["type"] == "FeatureCollection"
    first, second = document["features"]
    assert first["properties"] == {"objectType": "detection", "name": "1"}
    assert (first["type"], first["geometry"]["type"]) == ("Feature", "Polygon")
    outline, hole = first["geometry"]["coordinates"]
    assert outline[0] == outline[-1]
    assert hole[0] == hole[-1]
    assert sorted(hole[:-1]) == [[1, 1], [1, 3], [2, 2], [2, 3], [3, 1], [3, 2]]
    assert second["geometry"]["type"] == "MultiPolygon"
    assert second["geometry"]["coordinates"][0] == [[[6, 0], [6, 1], [5, 1], [5, 0], [6, 0]]]


def test_rois_are_one_per_cell_in_order():
    label = np.zeros((20, 60), np.int32)
    label[1:5, ::5] = np.arange(1, 13)
    label[:, 25:29] = 6
    label[5:8, 26:28] = 0
    with zipfile.ZipFile(io.BytesIO(encode_rois(label))) as archive:
        names = archive.namelist()
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in names]
    assert names == [f"{number:02}.roi" for number in range(1, 13)]
    assert [roi.name for roi in rois] == [str(number) for number in range(1, 13)]
    assert [roi.composite for roi in rois] == [number == 6 for number in range(1, 13)]
    assert (rois[5].left, rois[5].top, rois[5].right, rois[5].bottom) == (25, 0, 29, 20)
    assert rois[0].roitype == roifile.ROI_TYPE.POLYGON
    assert (rois[0].left, rois[0].top, rois[0].right, rois[0].bottom) == (0, 1, 1, 5)
    np.testing.assert_array_equal(sorted(rois[0].coordinates().tolist()), [[0, 1], [0, 5], [1, 1], [1, 5]])


@pytest.mark.parametrize("encode", ENCODERS)
def test_beyond_16_bits(encode):
    label = np.zeros((4, 70_000), np.int32)
    label[0, 32_766:32_770] = 1
    label[1:3, 40_000:65_000] = 2
    label[3] = 3
    label[3, 5] = 0
    np.testing.assert_array_equal(drawn(encode(label), label.shape), label)


def test_no_cell_is_an_empty_file():
    nothing = np.zeros((3, 3), np.int32)
    assert json.loads(encode_geojson(nothing))["features"] == []
    assert zipfile.ZipFile(io.BytesIO(encode_rois(nothing))).namelist() == []


def test_endless_outlines_are_refused(monkeypatch):
    monkeypatch.setattr(outlines, "MAX_SIDES", 15)
    encode_geojson(np.eye(3, dtype=np.int32))
    with pytest.raises(ResourceExhausted, match=r"16 sides of pixels; allowed: at most 15.*min_pixels"):
        encode_geojson(np.eye(4, dtype=np.int32))


@pytest.mark.parametrize("band_bytes", [1, 400])
def test_outlines_are_the_same_however_many_rows_are_looked_at_together(monkeypatch, band_bytes):
    label = np.random.default_rng(0).integers(0, 4, (23, 17)).astype(np.int32)
    whole = encode_geojson(label, background=True)
    monkeypatch.setattr("cellsparse_common.imaging.outlines.BAND_BYTES", band_bytes)
    assert encode_geojson(label, background=True) == whole
