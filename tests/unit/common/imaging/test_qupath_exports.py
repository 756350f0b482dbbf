"""Exports of QuPath are read as QuPath means them: containers, ignored classes, classifications of any form."""

import io
import json
import zipfile

import numpy as np
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging import json_features
from cellsparse_common.imaging.labels import read_label_file

SHAPE = (96, 128)


def square(x, y, size, height=None):
    bottom = y + (height or size)
    return [[x, y], [x + size, y], [x + size, bottom], [x, bottom], [x, y]]


def feature(coordinates, classification=None, kind="Polygon", object_type="annotation", **more):
    properties = {"objectType": object_type} if object_type else {}
    if classification is not None:
        properties["classification"] = classification
    geometry = {"type": kind, "geometries" if kind == "GeometryCollection" else "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties} | more


def collection(*features):
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def read(*features, shape=SHAPE):
    data = features[0] if isinstance(features[0], bytes) else collection(*features)
    return read_label_file(data, shape=shape, max_pixels=10**6)


def counts(found):
    values, pixels = np.unique(found.label, return_counts=True)
    return {value: count for value, count in zip(values.tolist(), pixels.tolist(), strict=True) if value >= 0}


CELLS = [
    feature([square(11, 15, 18)], object_type="detection"),
    feature([square(53, 15, 18)], object_type="detection"),
]
BACKGROUND = feature([square(80, 40, 10)], {"name": "Background", "color": [0, 0, 0]})
WHOLE = [square(0, 0, 128, 96)]
RIGHT = {0: 100, 1: 324, 2: 324}

NO_CELLS = {
    "Region*": feature(WHOLE, {"name": "Region*", "color": [0, 0, 180]}),
    "Ignore*": feature([square(90, 60, 9)], {"name": "Ignore*", "colorRGB": -1}),
    "any name with an asterisk": feature([square(90, 60, 9)], "Artefact*"),
    "derived, with an asterisk": feature([square(90, 60, 9)], {"names": ["Tumor", "Necrosis*"]}),
    "Training": feature([square(5, 5, 80)], {"name": "Training"}),
    "Validation": feature([square(100, 5, 9)], {"name": "Validation"}),
    "Test 2": feature([square(100, 5, 9)], "Test 2"),
    "Region": feature([square(100, 5, 9)], ["Region"]),
    "a core": feature([square(5, 5, 80)], object_type="tmaCore", isMissing=False),
    "a core as others write it": feature([square(5, 5, 80)], object_type="tma_core"),
    "a core of QuPath 0.2": feature([square(5, 5, 80)], object_type=None, id="TMACoreObject"),
    "a tile": feature([square(90, 60, 9)], object_type="tile"),
    "the root": {"type": "Feature", "geometry": None, "properties": {"objectType": "root"}},
    "parent without a class": feature([square(5, 5, 80)]),
    "parent with a class": feature([square(5, 5, 80)], "Tumor", isLocked=True),
    "parent that a cell sticks out of": feature([square(0, 0, 28)]),
    "parent of background alone": feature([square(75, 35, 30)]),
    "frame": feature(WHOLE),
    "a frame of a class": feature(WHOLE, "Tissue"),
    "no geometry": {"type": "Feature", "geometry": None, "properties": {"objectType": "annotation"}},
    "an empty polygon": feature([]),
    "an empty multipolygon": feature([[]], kind="MultiPolygon"),
    "parent with a hole": feature([square(5, 5, 100, 80), square(30, 10, 5)]),
    "points": feature([[3, 4], [5, 6]], kind="MultiPoint"),
    "a line": feature([[3, 4], [50, 60]], kind="LineString"),
    "a ruler of a class": feature([[3, 4], [50, 60]], "Tumor", kind="LineString"),
    "flat": feature([[[90, 60], [95, 60], [99, 60], [90, 60]]]),
    "too small": feature([square(90.6, 60.6, 0.2)]),
}


@pytest.mark.parametrize("name", NO_CELLS)
def test_what_is_no_cell_to_qupath(name):
    """Wherever it is in the list."""
    extra = NO_CELLS[name]
    for at in range(4):
        features = [*CELLS, BACKGROUND]
        features.insert(at, extra)
        found = read(*features)
        assert counts(found) == RIGHT
        assert found.skipped == 1
        assert f"feature {at + 1} " in found.notes[0]


FORMS = [
    "Background",
    " background ",
    {"name": "Background"},
    {"name": "Background", "color": [0, 0, 0]},
    {"name": "Background", "colorRGB": -3670016},
    {"names": ["Background"], "color": [0, 0, 0]},
    ["Background"],
    '{ "name": "Background", "color": [ 0, 0, 0 ] }',
    '{"names": ["Background"]}',
    "{'name': 'Background', 'color': [0, 0, 0]}",
    '"Background"',
    '["Background"]',
    json.dumps(json.dumps({"name": "Background"})),
    json.dumps(json.dumps("Background")),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_a_classification(form):
    assert counts(read(*CELLS, feature([square(80, 40, 10)], form))) == RIGHT


@pytest.mark.parametrize(
    "form", [None, "null", "", "Tumor: Positive", {"names": ["Tumor", "Positive"]}, {"name": None}]
)
def test_every_form_of_a_cell(form):
    assert counts(read(*CELLS, BACKGROUND, feature([square(30, 60, 5)], form))) == RIGHT | {3: 25}


@pytest.mark.parametrize("key", ["pathClass", "class", "class_name", "label", "name"])
def test_background_by_another_name(key):
    """Of features that have no classification: a tool other than QuPath wrote them, or a person named the object."""

    def called(value, classification=None):
        made = feature([square(80, 40, 10)], classification)
        made["properties"][key] = value
        return counts(read(*CELLS, made))

    for value in ("Background", " background ", {"name": "Background"}):
        assert called(value) == RIGHT
    for value in (7, "Cell 3", ["x", 1], {}, None):
        assert called(value) == {1: 324, 2: 324, 3: 100}
    assert called("Background", "Tumor") == {1: 324, 2: 324, 3: 100}


def test_a_frame_alone_is_no_cell():
    for frame in (feature(WHOLE, "Tumor"), feature(WHOLE, object_type=None)):
        with pytest.raises(InvalidArgument, match="feature 1 covers the whole image, so it is the frame around it"):
            read(frame)


def test_a_classification_that_nobody_understands_is_refused():
    for form in (7, "{broken", [1], {"name": 3}, {"name": {}}):
        with pytest.raises(InvalidArgument, match="feature 3 has the classification"):
            read(*CELLS, feature([square(80, 40, 10)], form))


def test_detections_hold_nothing():
    """A cell around a smaller one stays a cell: only annotations are parents."""
    found = read(feature([square(10, 10, 20)], object_type="cell"), feature([square(15, 15, 40)], object_type="cell"))
    assert counts(found) == {1: 400, 2: 1600 - 225}
    found = read(feature([square(10, 10, 20)]), feature([square(10, 10, 20)]))
    assert counts(found) == {1: 400}
    assert "covers no pixel" in found.notes[0]


def test_background_around_cells_is_background():
    found = read(feature(WHOLE, "Background"), *CELLS)
    assert counts(found) == {0: 12288 - 648, 1: 324, 2: 324}
    assert not found.skipped


def test_children_inside_their_parent():
    parent = feature([square(5, 5, 80)])
    parent["properties"]["childObjects"] = CELLS
    found = read(parent, BACKGROUND)
    assert counts(found) == RIGHT
    assert found.notes == ["feature 1 holds feature 1.1, so it is the region around it"]


def test_holes_parts_and_collections():
    ring = [square(10, 10, 10), square(13, 13, 4)]
    several = [ring, [square(30, 30, 2)]]
    whole = [
        {"type": "Polygon", "coordinates": ring},
        {"type": "MultiPolygon", "coordinates": [[square(30, 30, 2)]]},
        {"type": "Point", "coordinates": [1, 2]},
    ]
    for each in (feature(several, kind="MultiPolygon"), feature(whole, kind="GeometryCollection")):
        found = read(each)
        assert counts(found) == {1: 100 - 16 + 4}
        assert not found.skipped


def test_shapes_of_several_planes_are_refused():
    def on(z):
        made = feature([square(10 + z, 10, 5)])
        made["geometry"]["plane"] = {"c": -1, "z": z, "t": 0}
        return made

    assert counts(read(on(3), on(3))) == {1: 25}
    with pytest.raises(InvalidArgument, match="shapes on 2 planes, and its image is one"):
        read(on(3), on(20))


def test_nothing_left_is_refused_with_the_reason():
    with pytest.raises(InvalidArgument, match=r"feature 1 is of class 'Region\*'.*All its 2 shapes are left out"):
        read(NO_CELLS["Region*"], NO_CELLS["points"])
    assert counts(read(BACKGROUND)) == {0: 100}


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_geojson", ".geojson").replace("_roi", ".roi"), content)
    return buffer.getvalue()


def test_zipped_geojson(monkeypatch):
    data = collection(*CELLS, BACKGROUND)
    assert counts(read(zipped(a_geojson=data))) == RIGHT
    assert counts(read(zipped(folder__a_geojson=data, __MACOSX___a="x", readme="x"))) == RIGHT
    for more in ({"b_geojson": data}, {"b_roi": b"Iout"}):
        with pytest.raises(InvalidArgument, match="zip of several annotation files"):
            read(zipped(a_geojson=data, **more))
    coco = json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "height": 96, "width": 128}],
            "annotations": [{"id": 1, "image_id": 1, "segmentation": [[11, 15, 29, 15, 29, 33, 11, 33]]}],
        }
    )
    assert counts(read(zipped(a_geojson=coco))) == {1: 324, 0: 12288 - 324}
    monkeypatch.setattr(json_features, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ResourceExhausted, match="unpacks to more than"):
        read(zipped(a_geojson=data))


def test_flat_rois_are_left_out():
    def roi(*points):
        return roifile.ImagejRoi.frompoints(np.array(points, dtype=np.float32)).tobytes()

    cell = roi((11, 15), (29, 15), (29, 33), (11, 33))
    found = read(zipped(a_roi=cell, b_roi=roi((40, 20), (50, 20), (60, 20)), c_roi=roi((60, 60), (70, 70))))
    assert counts(found) == {1: 324}
    assert found.notes[0].startswith("ROI 'b.roi' is flat: its outline encloses no area")
    assert found.skipped == 2
    with pytest.raises(InvalidArgument, match=r"'b\.roi' is flat"):
        read(zipped(b_roi=roi((40, 20), (50, 20), (60, 20))))


@pytest.mark.parametrize("kind", [roifile.ROI_SUBTYPE.TEXT, roifile.ROI_SUBTYPE.IMAGE])
def test_texts_and_pictures_among_rois_are_no_cells(kind):
    """ImageJ stores them as rectangles."""
    written = {"text_name": "Arial", "text": "my cells"} if kind == roifile.ROI_SUBTYPE.TEXT else {"image_data": b"0"}
    box = {"roitype": roifile.ROI_TYPE.RECT, "top": 60, "left": 60, "bottom": 80, "right": 90}
    data = roifile.ImagejRoi(**box, subtype=kind, version=228, **written).tobytes()
    cell = roifile.ImagejRoi.frompoints(np.array([(11, 15), (29, 15), (29, 33), (11, 33)], np.float32)).tobytes()
    found = read(zipped(a_roi=cell, b_roi=data))
    assert counts(found) == {1: 324}
    assert found.notes[0].startswith(f"ROI 'b.roi' is of type {kind.name}")


SLOTS = [(x, y) for x in range(4, 120, 31) for y in range(4, 90, 30)]
CLASSES = {
    "cell": [None, "Tumor", {"name": "Foreground"}, {"names": ["Tumor", "Positive"]}, '{"name": "Immune cells"}'],
    "background": FORMS,
    "ignored": ["Ignore*", {"name": "Region*"}, {"names": ["Stroma", "Artefact*"]}, "Validation"],
}


def outline(x, y, points, radius):
    """Return a polygon with corners at no pixel's centre."""
    angle = np.arange(points) * 2 * np.pi / points + 0.1234
    ring = np.stack([x + 0.217 + radius * np.cos(angle), y + 0.391 + radius * np.sin(angle)], axis=1).tolist()
    return [*ring, ring[0]]


@st.composite
def exports(draw):
    """Draw (role, polygons, feature) of objects in places of their own, and regions around some, in any order."""
    objects = []
    for x, y in draw(st.lists(st.sampled_from(SLOTS), min_size=1, max_size=8, unique=True)):
        role = draw(st.sampled_from(["cell", "cell", "background", "ignored"]))
        points = draw(st.integers(3, 12))
        polygons = [[outline(x + 10, y + 10, points, draw(st.floats(5, 8)))]]
        if draw(st.booleans()):
            polygons[0].append(outline(x + 10, y + 10, points, 2.3))
        if draw(st.booleans()):
            polygons.append([outline(x + 21, y + 21, 4, 2.7)])
        kind = draw(st.sampled_from(["MultiPolygon", "GeometryCollection"])) if len(polygons) > 1 else "Polygon"
        coordinates = polygons if len(polygons) > 1 else polygons[0]
        if kind == "GeometryCollection":
            coordinates = [{"type": "Polygon", "coordinates": polygon} for polygon in polygons]
        object_type = draw(st.sampled_from([None, "annotation", "detection", "cell"]))
        made = feature(coordinates, draw(st.sampled_from(CLASSES[role])), kind, object_type)
        objects.append((role, polygons, made))
    inner = [polygons for role, polygons, _ in objects if role != "ignored"]
    for polygons in draw(st.lists(st.sampled_from(inner), max_size=3)) if inner else []:
        corners = np.concatenate([ring for polygon in polygons for ring in polygon])
        (x0, y0), (x1, y1) = corners.min(axis=0) - 1.2, corners.max(axis=0) + draw(st.floats(1.2, 40))
        region = [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]
        objects.append(("region", [region], feature(region, draw(st.sampled_from([None, "Tumor", "Region*"])))))
    return draw(st.permutations(objects))


@settings(max_examples=150, deadline=None)
@given(exports())
def test_generated_exports_against_another_rasteriser(objects):
    """Cells, background and unlabelled pixels are those of skimage's polygon2mask (holes by the even-odd rule)."""
    expected = np.full(SHAPE, -1)
    cells = 0
    for role, polygons, _ in objects:
        mask = np.zeros(SHAPE, bool)
        for polygon in polygons:
            part = np.zeros(SHAPE, bool)
            for ring in polygon:
                part ^= polygon2mask(SHAPE, np.array(ring)[:, ::-1] - 0.5)
            mask |= part
        if role == "cell":
            cells += 1
            expected[mask & (expected <= 0)] = cells
        elif role == "background":
            expected[mask & (expected < 0)] = 0
    left_out = sum(role in ("region", "ignored") for role, *_ in objects)
    if left_out == len(objects):
        with pytest.raises(InvalidArgument):
            read(*(made for *_, made in objects))
        return
    found = read(*(made for *_, made in objects))
    assert np.array_equal(found.label, expected)
    assert found.skipped == left_out
