import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellsparse_common.imaging.polygons import Shape, paint
from cellsparse_gateway.qupath.features import cell_features

RING = np.array([[0, 0, 0, 0, 0], [0, 7, 7, 7, 0], [0, 7, 0, 7, 0], [0, 7, 7, 7, 0], [0, 0, 0, 0, 0]])


def parts(feature):
    shape = feature["geometry"]
    return shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]


def painted(features, shape):
    shapes = [
        Shape(
            name=str(number),
            background=False,
            polygons=[[np.array(ring[:-1], float) for ring in part] for part in parts(feature)],
        )
        for number, feature in enumerate(features)
    ]
    return np.maximum(paint(shapes, shape, "label"), 0)


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_painted_outlines_are_the_label_image(label):
    """Holes, parts that touch at corners and cells inside others come back pixel by pixel."""
    _, dense = np.unique(np.append(label, 0), return_inverse=True)
    expected = dense[:-1].reshape(label.shape)
    assert np.array_equal(painted(cell_features(label), label.shape), expected)


def test_a_feature_is_a_polygon_with_its_holes_in_pixel_corners():
    (feature,) = cell_features(RING)
    assert feature == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [
                [(4, 1), (4, 4), (1, 4), (1, 1), (4, 1)],
                [(2, 2), (2, 3), (3, 3), (3, 2), (2, 2)],
            ],
        },
        "properties": {"object_idx": 0, "label": "object"},
    }


def test_a_cell_in_two_parts_is_one_multipolygon():
    label = np.array([[5, 0, 5]])
    (feature,) = cell_features(label)
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert len(feature["geometry"]["coordinates"]) == 2


def test_features_are_numbered_from_0_whatever_the_labels():
    label = np.array([[9, 0, 4, 0, 2]])
    features = cell_features(label)
    assert [feature["properties"]["object_idx"] for feature in features] == [0, 1, 2]
    assert [feature["geometry"]["coordinates"][0][0][0] for feature in features] == [5, 3, 1]


def test_without_cells_there_is_nothing():
    assert cell_features(np.zeros((3, 3), np.int32)) == []


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
def test_simplified_outlines_have_fewer_corners_and_stay_near(tolerance):
    ys, xs = np.mgrid[:60, :60]
    label = ((ys - 30) ** 2 + (xs - 30) ** 2 < 25**2).astype(np.int32)
    (exact,), (simple,) = cell_features(label), cell_features(label, tolerance)
    exact_ring, ring = (feature["geometry"]["coordinates"][0] for feature in (exact, simple))
    assert 4 <= len(ring) < len(exact_ring)
    assert ring[0] == ring[-1]
    assert set(ring) <= set(exact_ring)
    again = painted([simple], label.shape)
    overlap = (again > 0) & (label > 0)
    assert overlap.sum() / ((again > 0) | (label > 0)).sum() > 1 - 4 * tolerance / 25


def test_a_cell_never_vanishes_by_simplification():
    label = np.zeros((9, 9), np.int32)
    label[4, 4] = 1
    (feature,) = cell_features(label, 100.0)
    assert len(feature["geometry"]["coordinates"][0]) >= 4
