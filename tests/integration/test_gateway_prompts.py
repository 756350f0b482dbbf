"""Prompts over REST, with pixels and predictions of a real orchestrator."""

import base64
import json
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, until
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with Orchestrator(home) as orchestrator, Gateway(home) as started:
        orchestrator.healthy("unet")
        yield started


def call(gateway, path, body=None, *, raw=None):
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(gateway.api + path, data)  # noqa: S310 # our own gateway's
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def add(gateway, array):
    _, project = call(gateway, "/projects", {"name": "prompts"})
    status, image = call(gateway, f"/projects/{project['id']}/images?name=a.tif", raw=encode_tiff(array))
    assert status == 201, image
    return image["id"]


def cells(height, width, radius, places):
    y, x = np.mgrid[:height, :width]
    label = np.zeros((height, width), np.uint8)
    for number, (cy, cx) in enumerate(places, start=1):
        label[np.hypot(y - cy, x - cx) < radius] = number
    rng = np.random.default_rng(0)
    return (rng.normal(300, 20, label.shape) + 1500 * (label > 0)).astype(np.uint16), label


def masks(answer, shape):
    for proposal in answer["proposals"]:
        data = zlib.decompress(base64.b64decode(proposal["data"]))
        part = np.frombuffer(data, np.uint8).reshape(proposal["height"], proposal["width"])
        assert set(np.unique(part)) <= {0, 1}
        mask = np.zeros(shape, bool)
        y, x = proposal["y"], proposal["x"]
        assert y + part.shape[0] <= shape[0]
        assert x + part.shape[1] <= shape[1]
        mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        yield mask


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope="module")
def nuclei(gateway):
    pixels, label = cells(700, 900, 9, [(100, 100), (511, 511), (40, 890), (690, 300), (300, 700), (320, 640)])
    return add(gateway, pixels), label


@pytest.mark.parametrize(("number", "x", "y"), [(1, 100, 100), (2, 512, 509), (3, 892, 40), (4, 300, 695)])
@pytest.mark.parametrize("diameter", [None, 18])
def test_a_click_across_tiles_and_at_edges(gateway, nuclei, number, x, y, diameter):
    image, label = nuclei
    body = {"points": [{"x": x + 0.5, "y": y + 0.5}], "diameter": diameter}
    status, answer = call(gateway, f"/images/{image}/prompt", body)
    assert status == 200, answer
    assert answer["prompter"] == "classical"
    found = list(masks(answer, label.shape))
    areas = [mask.sum() for mask in found]
    assert areas == sorted(areas)
    assert answer["proposals"][answer["best"]]["level"] == 0
    assert all(mask[y, x] for mask in found)
    assert iou(found[answer["best"]], label == number) > 0.8
    assert answer["milliseconds"] > 0


def test_boxes_scribbles_and_negative_points(gateway, nuclei):
    image, label = nuclei
    for body in (
        {"method": "classical", "box": [90, 88, 112, 112]},
        {"method": "classical", "scribble": [[95, 100], [105, 101]], "channel": 0, "plane": 0},
        {"points": [{"x": 100, "y": 100}, {"x": 130, "y": 100, "positive": False}]},
    ):
        status, answer = call(gateway, f"/images/{image}/prompt", body)
        assert status == 200, answer
        found = list(masks(answer, label.shape))
        assert iou(found[answer["best"]], label == 1) > 0.8


def test_a_very_large_cell_comes_from_a_coarser_level(gateway):
    pixels, label = cells(2000, 2100, 450, [(1000, 1000)])
    image = add(gateway, pixels)
    body = {"points": [{"x": 900, "y": 1100}], "diameter": 880}
    status, answer = call(gateway, f"/images/{image}/prompt", body)
    assert status == 200, answer
    assert iou(list(masks(answer, label.shape))[answer["best"]], label > 0) > 0.95


def test_nothing_under_the_click_is_no_error(gateway):
    image = add(gateway, np.full((60, 70), 5, np.uint8))
    status, answer = call(gateway, f"/images/{image}/prompt", {"points": [{"x": 30, "y": 30}]})
    assert (status, answer["proposals"], answer["best"]) == (200, [], 0)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "shows no cell"),
        ({"points": [{"x": 1, "y": 1, "positive": False}]}, "shows no cell"),
        ({"points": [{"x": 900.5, "y": 1}]}, "outside the image of 900 x 700 pixels"),
        ({"box": [-9, -9, -1, -1]}, "box lies outside"),
        ({"points": [{"x": 1, "y": 1}], "plane": 1}, "no plane 1; allowed: 0 to 0"),
        ({"points": [{"x": 1, "y": 1}], "channel": 1}, "no channel 1; allowed: 0 to 0"),
        ({"points": [{"x": 1, "y": 1}], "method": "magic"}, "there are auto, model, classical"),
        ({"points": [{"x": 1, "y": 1}], "method": "onnx-sam"}, "no prompter 'onnx-sam' here"),
        ({"points": [{"x": "a", "y": 1}]}, "points.0.x"),
        ({"points": [{"x": 1, "y": 1}], "diameter": 0}, "diameter is 0"),
        ({"points": [{"x": 1, "y": 1}], "colour": 0}, "colour"),
        ([], "body"),
    ],
)
def test_bad_prompts_are_refused_with_a_sentence(gateway, nuclei, body, sentence):
    status, answer = call(gateway, f"/images/{nuclei[0]}/prompt", body)
    assert status == 422
    assert sentence in answer["detail"]


def test_unknown_images_and_layers(gateway, nuclei):
    body = {"points": [{"x": 1, "y": 1}]}
    assert call(gateway, "/images/none/prompt", body)[0] == 404
    status, answer = call(gateway, f"/images/{nuclei[0]}/prompt", {**body, "method": "model", "layer": "none"})
    assert status == 404, answer


def test_without_a_prediction_the_model_finds_nothing(gateway, nuclei):
    body = {"method": "model", "points": [{"x": 100, "y": 100}]}
    status, answer = call(gateway, f"/images/{nuclei[0]}/prompt", body)
    assert (status, answer["proposals"], answer["prompter"]) == (200, [], "model")


def test_the_instance_of_a_prediction_comes_first(gateway):
    pixels, label = blobs(600, seed=3)
    _, project = call(gateway, "/projects", {"name": "predicted"})
    _, image = call(gateway, f"/projects/{project['id']}/images?name=a.tif", raw=encode_tiff(pixels))
    place = f"/images/{image['id']}"
    call(gateway, f"{place}/labels?kind=instances&author=a", raw=encode_labels(label))
    status, run = call(gateway, f"/projects/{project['id']}/train", {"backend": "unet", "settings": {"steps": 3}})
    assert status == 201, run
    until(lambda: call(gateway, f"/runs/{run['id']}")[1]["state"] == "RUN_STATE_SUCCEEDED", PATIENCE)
    status, layer = call(gateway, f"{place}/layers", {"model_id": run["id"]})
    assert status == 201, layer
    _, listed = call(gateway, f"{place}/cells?layer={layer['id']}")
    cell = max(listed["cells"], key=lambda each: each["area"])
    for shown in (
        {"box": [cell["x"], cell["y"], cell["x"] + cell["width"], cell["y"] + cell["height"]]},
        {"points": [{"x": cell["x"] + cell["width"] / 2, "y": cell["y"] + cell["height"] / 2}], "layer": layer["id"]},
    ):
        status, answer = call(gateway, f"{place}/prompt", shown)
        assert (status, answer["prompter"]) == (200, "model"), answer
        first = answer["proposals"][answer["best"]]
        assert [first[key] for key in ("x", "y", "width", "height")] == [
            cell[key] for key in ("x", "y", "width", "height")
        ]
        assert list(masks(answer, label.shape))[answer["best"]].sum() == cell["area"]
    asked = {**shown, "method": "classical"}
    assert call(gateway, f"{place}/prompt", asked)[1]["prompter"] == "classical"


def test_the_status_lists_the_prompters(gateway):
    _, status = call(gateway, "/status")
    assert [each["name"] for each in status["prompters"]] == ["model", "classical"]
