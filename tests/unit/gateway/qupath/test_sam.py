import base64
from io import BytesIO

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from support.asgi import AsgiClient
from support.tiny_dataset import blobs

from cellsparse_common.imaging.polygons import Shape, paint
from cellsparse_gateway.prompts.classical import Classical
from cellsparse_gateway.prompts.types import Proposal
from cellsparse_gateway.qupath.bodies import PromptBody
from cellsparse_gateway.qupath.prompting import answer_prompt
from cellsparse_gateway.qupath.sam_routes import sam_router

IMAGE, LABEL = blobs(128)


def b64(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


RENDERED = b64(np.repeat(IMAGE[..., None], 3, axis=2))


@pytest.fixture(scope="module")
def client():
    app = FastAPI(redirect_slashes=False)
    app.include_router(sam_router(lambda: {"classical": Classical()}))
    return AsgiClient(app)


def mask(feature):
    shape = feature["geometry"]
    parts = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    polygons = [[np.array(ring[:-1], float) for ring in part] for part in parts]
    return paint([Shape(name="1", background=False, polygons=polygons)], IMAGE.shape, "label") == 1


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("base", ["/sam/", "/sam"])
def test_the_extension_s_questions_are_answered(client, base):
    assert client.get(f"{base}version/").text.startswith("0.7.1+cellsparse.")
    assert client.get(f"{base}progress/").json() == {"message": "Nothing is downloaded", "percent": 100}
    assert client.get(f"{base}weights/cancel/").status_code == 200
    assert client.get(f"{base}weights/?type=sam2_t").json() == [
        {"type": "sam2_t", "name": "cellsparse (no weights)", "url": "cellsparse:classical"}
    ]


def test_no_list_of_weights_is_empty(client):
    kinds = [found["type"] for found in client.get("/sam/weights/").json()]
    assert len(kinds) == len(set(kinds)) == 9
    assert len(client.get("/sam/weights/?type=new").json()) == 1


def test_nothing_is_downloaded(client):
    answer = client.post("/sam/weights/", {"type": "vit_h", "name": "x", "url": "https://example.org/x.pth"})
    assert answer.status_code == 422
    assert "downloads no weights" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/sam/video/", "/sam/upload/", "/sam/sam3/"])
def test_what_needs_sam_itself_says_so(client, path):
    assert client.post(path, {}).status_code == 501


@pytest.mark.parametrize("path", ["/sam/", "/sam"])
def test_a_click_gives_the_cell(client, path):
    cell = int(LABEL[32, 32])
    answer = client.post(path, {"type": "vit_l", "point_coords": [[32, 32]], "point_labels": [1], "b64img": RENDERED})
    (feature,) = answer.json()
    assert iou(mask(feature), cell == LABEL) > 0.8
    properties = feature["properties"]
    assert set(properties) == {"label", "quality", "sam_model"}
    assert 0 <= properties["quality"] <= 1
    assert properties["sam_model"] == "vit_l"


def test_a_box_gives_the_cell(client):
    rows, columns = np.nonzero(int(LABEL[32, 32]) == LABEL)
    box = [int(columns.min()) - 3, int(rows.min()) - 3, int(columns.max()) + 4, int(rows.max()) + 4]
    (feature,) = client.post("/sam/", {"bbox": box, "b64img": RENDERED}).json()
    assert iou(mask(feature), LABEL[32, 32] == LABEL) > 0.8


def test_a_click_in_a_large_view_gives_the_same_cell(client):
    """Only what surrounds the prompt is looked at."""
    view = np.tile(np.repeat(IMAGE[..., None], 3, axis=2), (8, 8, 1))
    x, y = 5 * 128 + 32, 6 * 128 + 32
    body = {"point_coords": [[x, y]], "point_labels": [1], "b64img": b64(view)}
    (feature,) = client.post("/sam/", body).json()
    moved = [[[cx - 5 * 128, cy - 6 * 128] for cx, cy in ring] for ring in feature["geometry"]["coordinates"]]
    here = {**feature, "geometry": {**feature["geometry"], "coordinates": moved}}
    assert iou(mask(here), int(LABEL[32, 32]) == LABEL) > 0.8


def test_several_proposals_rise_in_size(client):
    body = {"point_coords": [[32, 32]], "point_labels": [1], "b64img": RENDERED, "multimask_output": True}
    areas = [int(mask(feature).sum()) for feature in client.post("/sam/", body).json()]
    assert areas == sorted(areas)
    assert areas


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "no point inside an object"),
        ({"point_coords": [[5, 5]], "point_labels": [0]}, "no point inside an object"),
        ({"point_coords": [[5, 500]], "point_labels": [1]}, "no point inside an object"),
        ({"point_coords": [[5, 5]], "point_labels": []}, "1 point_coords and 0 point_labels"),
        ({"bbox": [500, 500, 600, 600]}, "has no pixel in the image"),
        ({"b64mask": "AAAA", "bbox": [0, 0, 9, 9]}, "b64mask is not supported"),
    ],
)
def test_prompts_that_point_at_nothing_are_refused(client, body, said):
    answer = client.post("/sam/", {**body, "b64img": RENDERED})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_everything_is_all_cells(client):
    features = client.post("/sam/automask/", {"b64img": RENDERED, "points_per_side": 32}).json()
    assert len(features) == LABEL.max()
    for cell in range(1, LABEL.max() + 1):
        assert max(iou(mask(feature), cell == LABEL) for feature in features) > 0.8


def test_an_even_image_has_no_cells(client):
    assert client.post("/sam/automask/", {"b64img": b64(np.full((50, 50, 3), 9, np.uint8))}).json() == []


def test_a_network_sees_the_same_part_for_clicks_beside_each_other():
    pixels, seen = np.zeros((2000, 3000), np.uint8), []

    class Network:
        name, title, licence = "mine", "Mine", "MIT"

        def propose(self, prompt):
            (point,) = prompt.points
            seen.append((prompt.image.shape, point.x, point.y))
            mask = np.ones((3, 3), bool)
            return [Proposal(mask=mask, x=int(point.x) - 1, y=int(point.y) - 1, quality=1.0)]

    prompters = {"classical": Classical(), "mine": Network()}
    for x in (1480, 1500):
        body = PromptBody(
            type="vit_t",
            b64img=b64(pixels),
            point_coords=[(x, 1000)],
            point_labels=[1],
            checkpoint_url="cellsparse:mine",
        )
        (feature,) = answer_prompt(prompters, body)
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring.min(0).tolist() == [x - 1, 999]
        assert ring.max(0).tolist() == [x + 2, 1002]
    assert seen == [((768, 768), 1480.5 - 1152, 1000.5 - 640), ((768, 768), 1500.5 - 1152, 1000.5 - 640)]
