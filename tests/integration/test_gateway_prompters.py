"""Weights that users bring over REST, and prompts answered with them."""

import io
import zipfile

import httpx
import numpy as np
import pytest
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, until
from support.tiny_sam import decoder, encoder, prompter_messages, sha256

from cellsparse_common.imaging.images import encode_tiff

PAIR = (encoder(prepares=True), decoder())


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home"), CELLSPARSE_LAUNCHER="static") as started:
        yield started


@pytest.fixture(scope="module")
def gateway(orchestrator):
    with Gateway(orchestrator.home) as started:
        yield started


@pytest.fixture
def client(gateway):
    with httpx.Client(base_url=gateway.api, timeout=PATIENCE) as made:
        yield made
        for prompter in made.get("/prompters").json()["prompters"]:
            made.delete(f"/prompters/{prompter['name']}").raise_for_status()


def zipped(pair, names=("encoder.onnx", "decoder.onnx")):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in zip(names, pair, strict=True):
            archive.writestr(name, data)
    return buffer.getvalue()


def add(client, name, pair=PAIR, body=None, **query):
    query = {"licence": "MIT", "encoder_sha256": sha256(pair[0]), "decoder_sha256": sha256(pair[1]), **query}
    return client.post("/prompters", params={"name": name, **query}, content=body or zipped(pair))


@pytest.fixture(scope="module")
def image(gateway):
    pixels = np.random.default_rng(0).integers(0, 4000, (700, 900)).astype(np.uint16)
    with httpx.Client(base_url=gateway.api, timeout=PATIENCE) as made:
        project = made.post("/projects", json={"name": "prompts"}).json()
        added = made.post(f"/projects/{project['id']}/images?name=a.tif", content=encode_tiff(pixels))
    return added.raise_for_status().json()["id"]


def prompt(client, image, method, x=300, y=400):
    body = {"method": method, "points": [{"x": x, "y": y}], "diameter": 20}
    return client.post(f"/images/{image}/prompt", json=body)


def names(client):
    return [each["name"] for each in client.get("/status").json()["prompters"]]


def test_a_pair_is_kept_listed_with_its_licence_and_answers(client, image, gateway, orchestrator):
    answer = add(client, "tiny", licence="Apache-2.0 (mine)")
    assert answer.status_code == 201, answer.text
    assert answer.json()["encoder"] == {"sha256": sha256(PAIR[0]), "size": len(PAIR[0])}
    listed = {each["name"]: each for each in client.get("/status").json()["prompters"]}
    assert list(listed) == ["model", "tiny", "classical"]
    assert listed["tiny"] == {"name": "tiny", "title": "Segment Anything tiny", "licence": "Apache-2.0 (mine)"}
    for method in ("tiny", "onnx-sam", "auto"):
        answer = prompt(client, image, method)
        assert answer.status_code == 200, answer.text
        assert answer.json()["prompter"] == "tiny"
        first = answer.json()["proposals"][answer.json()["best"]]
        # The tiny decoder draws a square of 200 of the encoder's 1024 pixels around the click, in a window of 256.
        assert (first["width"], first["height"]) == (49, 49)
        assert (first["x"], first["y"]) == (276, 376)
    weights = httpx.get(f"{gateway.url}/sam/weights/?type=vit_t", timeout=PATIENCE).json()
    assert {"type": "vit_t", "name": "cellsparse: Segment Anything tiny", "url": "cellsparse:tiny"} in weights
    assert sorted(path.name for path in (orchestrator.home / "weights").iterdir()) == sorted(
        f"{sha256(data)}.onnx" for data in PAIR
    )
    assert add(client, "tiny").status_code == 409
    assert client.delete("/prompters/tiny").status_code == 204
    assert names(client) == ["model", "classical"]
    answer = prompt(client, image, "tiny")
    assert (answer.status_code, "there are auto, model, classical" in answer.json()["detail"]) == (422, True)


def test_a_pair_that_does_not_fit_is_refused_at_its_first_use_and_auto_goes_on(client, image):
    pair = (decoder(), decoder())
    assert add(client, "wrong", pair).status_code == 201
    for _ in range(2):
        answer = prompt(client, image, "wrong")
        assert answer.status_code == 422
        assert "'wrong' does not work here. The encoder and decoder do not work together" in answer.json()["detail"]
    assert prompt(client, image, "auto").json()["prompter"] == "classical"


def test_a_pair_is_tried_before_its_first_click(client, orchestrator):
    assert add(client, "tiny").status_code == 201
    answer = client.post("/prompters/tiny/check")
    assert (answer.status_code, answer.content) == (204, b"")
    assert add(client, "wrong", (decoder(), decoder())).status_code == 201
    answer = client.post("/prompters/wrong/check")
    assert (answer.status_code, "'wrong' does not work here." in answer.json()["detail"]) == (422, True)
    answer = client.post("/prompters/classical/check")
    assert (answer.status_code, "no prompter 'classical'" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ({}, b"no zip", 422, "not a zip file"),
        ({}, zipped(PAIR, ("encoder.onnx", "other.onnx")), 422, "no file decoder.onnx"),
        ({}, zipped((b"\x80\x02.", PAIR[1])), 422, "another file, or broken"),
        ({"encoder_sha256": sha256(b"PK..")}, zipped((b"PK..", PAIR[1])), 422, "samexporter"),
        ({"name": "auto"}, None, 422, "taken by a built-in prompter"),
        ({"licence": ""}, None, 422, "licence"),
        ({"encoder_sha256": "0"}, None, 422, "encoder_sha256"),
    ],
)
def test_bad_uploads_are_refused_with_a_sentence(client, query, body, status, said):
    answer = add(client, **{"name": "sam", **query}, body=body)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert client.get("/prompters").json()["prompters"] == []


def test_another_gateway_finds_them_and_mends_its_cache(client, image, orchestrator, tmp_path):
    orchestrator.prompters.AddPrompter(prompter_messages("grpc", PAIR), timeout=PATIENCE)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"{sha256(PAIR[0])}.onnx").write_bytes(b"broken by someone")
    with (
        Gateway(orchestrator.home, CELLSPARSE_GATEWAY_WEIGHTS_FOLDER=str(folder)) as other,
        httpx.Client(base_url=other.api, timeout=PATIENCE) as there,
    ):
        # A click never waits for weights: another prompter answers until they are loaded.
        until(lambda: prompt(there, image, "auto").json()["prompter"] == "grpc")
        assert (folder / f"{sha256(PAIR[0])}.onnx").read_bytes() == PAIR[0]
