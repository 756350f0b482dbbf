"""Drawn annotations become label images: pixel centres, classes, limits and refusals."""

import io
import json
import time
import zipfile

import numpy as np
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.imaging import geojson, imagej_roi, json_features, polygons
from cellsparse_common.imaging.labels import LabelKind, decode_labels
from cellsparse_common.imaging.vector_labels import decode_vector_labels

SHAPE = (40, 60)


def square(x, y, size):
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


def feature(coordinates, name=None, kind="Polygon", **properties):
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    return {
        "type": "Feature",
        "id": "0b5c",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation"} | properties,
    }


def collection(*features):
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def draw(data, shape=SHAPE):
    return decode_vector_labels(data, shape=shape)


def roi(points, name, **options):
    return roifile.ImagejRoi.frompoints(np.array(points, dtype=np.float32), name=name, **options).tobytes()


def box_roi(kind, left, top, right, bottom, name=""):
    made = roifile.ImagejRoi()
    made.roitype, made.left, made.top, made.right, made.bottom = kind, left, top, right, bottom
    made.name, made.version, made.n_coordinates = name, 228, 0
    return made.tobytes()


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_roi", ".roi"), content)
    return buffer.getvalue()


# GeoJSON


def test_cells_background_and_the_rest():
    data = collection(
        feature([square(5, 6, 4)], "Tumor"),
        feature([square(30, 0, 10)], "bAckground"),
        feature([square(20, 20, 3)]),
    )
    label = draw(data)
    assert label.dtype == np.int32
    assert (label[6:10, 5:9] == 1).all()
    assert (label[0:10, 30:40] == 0).all()
    assert (label[20:23, 20:23] == 2).all()
    assert np.unique(label, return_counts=True)[1].tolist() == [2400 - 16 - 100 - 9, 100, 16, 9]


@pytest.mark.parametrize(
    "document",
    [
        [feature([square(5, 6, 4)])],
        feature([square(5, 6, 4)]),
        {"type": "FeatureCollection", "features": [feature([square(5, 6, 4)[:-1]])]},
        {"type": "FeatureCollection", "features": [feature([[[*point, 0.0] for point in square(5, 6, 4)]])]},
    ],
)
def test_accepted_documents(document):
    for encoding in ("utf-8", "utf-8-sig"):
        label = decode_labels(("\n " + json.dumps(document)).lstrip().encode(encoding), shape=SHAPE, max_pixels=9999)
        assert (label > 0).sum() == 16


def test_holes_and_several_parts():
    ring = [square(10, 10, 10), square(13, 13, 4)]
    label = draw(collection(feature([ring, [square(30, 30, 2)]], kind="MultiPolygon")))
    assert (label == 1).sum() == 100 - 16 + 4
    assert (label[13:17, 13:17] == -1).all()


def test_newer_qupath_writes_a_list_of_names():
    data = collection(
        feature([square(1, 1, 9)], classification={"names": ["Background"]}), feature([square(20, 20, 5)])
    )
    assert set(np.unique(draw(data))) == {-1, 0, 1}


def test_the_first_cell_keeps_a_pixel_and_cells_beat_background():
    a, b, background = (
        feature([square(0, 0, 10)]),
        feature([square(5, 5, 10)]),
        feature([square(0, 0, 30)], "Background"),
    )
    for order in ((a, b, background), (background, a, b)):
        label = draw(collection(*order))
        assert (label == 1).sum() == 100
        assert (label == 2).sum() == 75
        assert (label == 0).sum() == 900 - 175


def test_parts_outside_are_cut_off():
    label = draw(collection(feature([square(-5, -5, 10)]), feature([square(55, 35, 100)])))
    assert (label == 1).sum() == 25
    assert (label[35:, 55:] == 2).all()


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(-20, 80), st.floats(-20, 60)), min_size=3, max_size=30),
)
def test_pixel_centres_decide(points):
    """Against skimage's polygon2mask, apart from centres that lie on an edge."""
    shape = polygons.Shape(name="it", background=False, polygons=[[np.array(points)]])
    try:
        label = polygons.paint([shape], SHAPE, "label")
    except InvalidArgument:
        label = np.full(SHAPE, -1)
    expected = polygon2mask(SHAPE, np.array(points)[:, ::-1] - 0.5)
    near = np.zeros(SHAPE, bool)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        t = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max(length, 1e-300), 0, 1)
        near |= np.hypot(x0 + t * (x1 - x0) - x, y0 + t * (y1 - y0) - y) < 1e-6
    assert ((label > 0) == expected)[~near].all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "truncated or broken GeoJSON"),
        (b"[" * 100_000, "truncated or broken GeoJSON"),
        (collection(feature([square(1, 1, 9)]))[:-20], "truncated or broken GeoJSON"),
        (b'{"a": "\xff"}', "truncated or broken GeoJSON"),
        (b"[1" + b"0" * 5000 + b"]", "truncated or broken GeoJSON"),
        (b"[]", "without features"),
        (collection(), "without features"),
        (b'{"type": "FeatureCollection"}', "without features"),
        (b"{}", "feature 1 is no GeoJSON Feature"),
        (b"[1]", "feature 1 is no GeoJSON Feature"),
        (b'[{"type": "Feature", "geometry": null}]', "feature 1 has no coordinates"),
        (b'[{"type": "Feature"}]', "feature 1 is no GeoJSON Feature"),
        (collection(feature([1, 2], kind="Point")), "feature 1 is of type 'Point'; allowed: Polygon and MultiPolygon"),
        (collection(feature([])), "feature 1 has no coordinates"),
        (collection(feature(None)), "feature 1 has no coordinates"),
        (collection(feature([], kind="MultiPolygon")), "feature 1 has no coordinates"),
        (collection(feature([[[1, 2], [3, "4"]]])), "not x, y numbers"),
        (collection(feature([[[1], [3], [4]]])), "not x, y numbers"),
        (collection(feature([[1, 2, 3]])), "not x, y numbers"),
        (collection(feature([[[1, 2], [3, 4], [1, 2]]])), "has 2 vertices; an outline needs at least 3"),
        (collection(feature([[[1, 2], [3, float("nan")], [1, 5]]])), "not finite"),
        (collection(feature([[[1, 2], [3, 10**30], [1, 5]]])), "not finite"),
        (collection(feature([[[1, 2], [3, 10**400], [1, 5]]])), "not x, y numbers"),
        (
            collection(feature([square(1, 1, 5)]), feature([square(100, 100, 5)])),
            "feature 2 lies outside the image of 40 x 60",
        ),
        (collection(feature([square(-9, 5, 5)])), r"spans x -9 to -4, y 5 to 10"),
        (collection(feature([square(5.6, 5.6, 0.2)])), "feature 1 covers no pixel"),
    ],
)
def test_geojson_refused(data, words):
    with pytest.raises(InvalidArgument, match=words) as caught:
        decode_labels(data, shape=SHAPE, max_pixels=9999, kind=LabelKind.LABEL_KIND_INSTANCES)
    assert caught.value.violations[0][0] == "label"


# ImageJ


def test_roi_zip():
    data = archive(
        a_roi=roi([[5, 6], [9, 6], [9, 10], [5, 10]], "0001"),
        rois__background_roi=box_roi(roifile.ROI_TYPE.RECT, 30, 0, 40, 10, "Background 1"),
        b_roi=roi([[20.5, 20.5], [23.5, 20.5], [23.5, 23.5], [20.5, 23.5]], "0002"),
        readme="not a ROI",
    )
    label = decode_labels(data, shape=SHAPE, max_pixels=9999)
    assert (label[6:10, 5:9] == 1).all()
    assert (label[0:10, 30:40] == 0).all()
    assert (label[20:23, 20:23] == 2).sum() == 9 or (label == 2).sum() == 9
    assert (label == 1).sum() == 16
    assert (label == 0).sum() == 100


def test_a_single_roi_and_mac_litter():
    content = roi([[5, 6], [9, 6], [9, 10]], "cell")
    assert (draw(content) == 1).sum() > 0
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("__MACOSX/._a.roi", b"litter")
        file.writestr("a.roi", content)
    assert np.array_equal(draw(buffer.getvalue()), draw(content))


def test_oval_is_an_ellipse_of_pixel_centres():
    label = draw(box_roi(roifile.ROI_TYPE.OVAL, 10, 5, 40, 25))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    expected = ((x - 25) / 15) ** 2 + ((y - 15) / 10) ** 2 <= 1
    assert ((label == 1) != expected).sum() <= 4
    assert (label == 1).sum() == pytest.approx(expected.sum(), rel=0.01)


def test_file_name_counts_where_the_roi_has_no_name():
    data = archive(
        background2_roi=box_roi(roifile.ROI_TYPE.RECT, 0, 0, 5, 5),
        cell_roi=box_roi(roifile.ROI_TYPE.RECT, 9, 9, 12, 12),
    )
    label = draw(data)
    assert (label == 0).sum() == 25
    assert (label == 1).sum() == 9


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(readme="x"), "zip without .roi files"),
        (archive(a_roi=b"Iout"), "ROI 'a.roi' is truncated or broken"),
        (archive(a_roi=b"x" * 200), "ROI 'a.roi' is truncated or broken"),
        (archive(a_roi=roi([[5, 6], [9, 6], [9, 10]], "x"))[:-30], "truncated or broken zip"),
        (b"PK\x03\x04" + b"\0" * 50, "truncated or broken zip"),
        (archive(a_roi=box_roi(roifile.ROI_TYPE.LINE, 1, 1, 9, 9)), "ROI 'a.roi' is of type LINE; allowed: polygon"),
        (archive(a_roi=roi([[5, 6], [9, 6]], "x")), "has 2 vertices; an outline needs at least 3"),
        (archive(a_roi=roi([[500, 6], [509, 6], [509, 60]], "x")), "ROI 'a.roi' lies outside the image"),
    ],
)
def test_roi_refused(data, words):
    with pytest.raises(InvalidArgument, match=words):
        decode_labels(data, shape=SHAPE, max_pixels=9999)


# Limits


def test_zip_bombs_are_bounded():
    content = b"\0" * (imagej_roi.MAX_ROI_BYTES + 1)
    with pytest.raises(ResourceExhausted, match="unpacks to more than"):
        draw(archive(a_roi=content))
    many = b"PK\x03\x04" + b"PK\x01\x02" * (imagej_roi.MAX_ROIS + 1)
    with pytest.raises(ResourceExhausted, match="more than 100,000 files"):
        draw(many)


def test_geojson_size_and_vertices_are_bounded(monkeypatch):
    with pytest.raises(ResourceExhausted, match="at most 67,108,864"):
        draw(b"[" + b" " * json_features.MAX_BYTES)
    with pytest.raises(ResourceExhausted, match="more than 4,000,000 points"):
        draw(b"[" * (json_features.MAX_BRACKETS + 1))
    monkeypatch.setattr(geojson, "MAX_VERTICES", 7)
    with pytest.raises(ResourceExhausted, match="more than 7 vertices"):
        draw(collection(feature([square(1, 1, 5)]), feature([square(20, 1, 5)])))


def test_drawing_work_is_bounded():
    start = time.process_time()
    everything = feature([square(-1, -1, 5000)], "Background")
    with pytest.raises(ResourceExhausted, match="cover the image more than 32 times"):
        draw(collection(*[everything] * 100), shape=(2000, 2000))
    zigzag = [[index % 3, 4000 * (index % 2)] for index in range(30_000)]
    with pytest.raises(ResourceExhausted, match="cross more than"):
        draw(collection(feature([zigzag])), shape=(4000, 10))
    assert time.process_time() - start < 30


@settings(max_examples=200)
@given(
    st.sampled_from(
        [
            collection(feature([square(5, 6, 4)], "Tumor"), feature([square(20, 20, 3)])),
            archive(a_roi=roi([[5, 6], [9, 6], [9, 10]], "x"), b_roi=box_roi(roifile.ROI_TYPE.OVAL, 1, 1, 9, 9)),
            roi([[5, 6], [9, 6], [9, 10]], "x"),
            box_roi(roifile.ROI_TYPE.OVAL, 1, 1, 9, 9, "name"),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
)
def test_any_bytes_give_labels_or_a_sentence(data, edits, cut):
    changed = bytearray(data)
    for at, value in edits:
        changed[at % len(changed)] = value
    try:
        label = draw(bytes(changed[:cut] if cut % 2 else changed))
    except CellsparseError:
        return
    assert label.shape == SHAPE
    assert label.min() >= -1
