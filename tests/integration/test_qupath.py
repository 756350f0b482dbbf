"""QuPath's extension against a real gateway: the Java client presses Training, Inference and Reset."""

import http.client
import json
import threading
import time

import numpy as np
import pytest
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, until
from support.qupath import QuPath
from support.qupath_services import Services

from cellsparse_gateway.qupath.pictures import Picture, read_labels, read_picture
from cellsparse_proto.v1 import common_pb2

SENDABLE = ("grey8", "grey16", "rgb", "argb", "channels2x8", "channels2x16", "channels4x8", "channels4x16")
UNSENDABLE = ("channels1x8", "channels3x8", "channels3x16", "channels5x16")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """With a trainer that learns nothing: what is tested is what surrounds it."""
    home = tmp_path_factory.mktemp("qupath") / "home"
    qupath = QuPath(home.parent)
    with Orchestrator(home) as orchestrator, Gateway(home) as gateway:
        orchestrator.healthy("unet")
        yield Services(orchestrator, gateway, qupath)


@pytest.fixture
def services(stack):
    stack.begin()
    return stack


def test_train_infer_and_reset(services):
    elephant = services.url("elephant")
    refused = services.qupath.infer(elephant, "grey8")
    assert (refused.status, refused.json()["detail"][:12]) == (409, "Train first:")

    trained = services.qupath.train(elephant, "grey8")
    assert trained.status == 200, trained.text
    assert trained.kind == "application/json"
    first = services.alias("unet").model_id
    services.check_outlines(trained.json(), first, "grey8")
    assert trained.json()

    found = services.qupath.infer(elephant, "grey16")
    assert found.status == 200
    services.check_outlines(found.json(), first, "grey16")
    assert len(services.images("unet")) == 1

    assert services.qupath.train(elephant, "grey8").status == 200
    newest, oldest = services.runs()
    assert newest.settings.initial_model == oldest.id == first
    assert services.alias("unet").model_id == newest.id
    assert len(services.images("unet")) == 1, "the same image replaces itself"

    assert services.qupath.train(elephant, "grey16").status == 200
    assert len(services.images("unet")) == 2, "another image is trained together with the first"

    reset = services.qupath.reset(elephant)
    assert (reset.status, reset.json()) == (200, "")
    assert services.qupath.infer(elephant, "grey8").status == 409
    assert len(services.runs()) == 3, "runs stay"
    assert services.qupath.reset(elephant).status == 200
    assert services.qupath.train(elephant, "grey8").status == 200
    assert services.runs()[0].settings.initial_model == ""


def test_the_java_runtime_s_files_are_read_pixel_by_pixel(services):
    texts = services.qupath
    gray, labels = texts.array("grey8"), texts.array("labels")
    pixels = {name: read_picture(texts.text(name), gray.size).array for name in SENDABLE}
    four = pixels["channels4x8"]
    assert four.shape == (*gray.shape, 4)
    assert np.array_equal(four[..., 0], gray)
    assert np.array_equal(pixels["rgb"], four[..., :3])
    assert np.array_equal(pixels["argb"], four[..., :3])
    assert np.array_equal(pixels["channels2x8"], four[..., :2])
    assert np.array_equal(pixels["channels4x16"], four.astype(np.uint16) * 200)
    assert np.array_equal(pixels["channels2x16"], four[..., :2].astype(np.uint16) * 200)
    assert np.array_equal(pixels["grey16"], gray.astype(np.uint16) * 200)
    assert np.unique(read_labels(texts.text("labels"), Picture(gray), gray.size)).tolist() == [0, 1, 2, 3]
    assert np.array_equal(labels > 1, (gray > 100) & (np.arange(len(gray))[:, None] < len(gray) // 2))


def test_images_of_several_channels_are_trained_and_others_are_explained(services):
    elephant = services.url("elephant")
    for name in ("argb", "channels2x16", "channels4x16"):
        answer = services.qupath.train(elephant, name)
        assert answer.status == 200, (name, answer.text)
        services.check_outlines(answer.json(), services.alias("unet").model_id, name)
    runs = len(services.runs())
    for name in UNSENDABLE:
        assert services.qupath.text(name) == ""
        answer = services.qupath.train(elephant, name)
        assert (answer.status, answer.json()["detail"][:22]) == (422, "QuPath sent no pixels:")
    answer = services.qupath.train(elephant, "grey8", "noforeground")
    assert answer.status == 422
    assert "class Foreground (spelled so)" in answer.json()["detail"]
    assert len(services.runs()) == runs, "what cannot be trained makes no run"


def test_the_sam_extension_is_answered_without_weights(services):
    sam = services.url("sam")
    assert services.qupath.get(f"{sam}version/").text.startswith("0.7.1")
    (weights,) = services.qupath.get(f"{sam}weights/?type=vit_b").json()
    assert weights["type"] == "vit_b"
    size = services.qupath.size
    label = services.qupath.array("labels") == 2
    body = {
        "type": "vit_b",
        "point_coords": [[size // 4, size // 4]],
        "point_labels": [1],
        "b64img": services.qupath.text("rgb"),
        "multimask_output": False,
        "checkpoint_url": weights["url"],
    }
    (feature,) = services.qupath.post(sam, body).json()
    painted = services.qupath.paint([feature], label.shape) == 1
    assert (painted & label).sum() / (painted | label).sum() > 0.8
    assert "object_idx" not in feature["properties"]
    everything = services.qupath.post(f"{sam}automask/", {"type": "vit_b", "b64img": body["b64img"]})
    assert len(everything.json()) == 4


def test_a_base_url_alone_is_told_the_addresses(services):
    answer = services.qupath.train(f"{services.gateway.url}/", "grey8")
    assert answer.status == 404
    assert f"{services.gateway.url}/stardist/" in answer.json()["detail"]
    assert services.qupath.train(f"{services.gateway.url}/elephant", "grey8").status == 200
    assert services.qupath.post(f"{services.gateway.url}/elephantreset/", {"modelname": "default"}).status == 200


def test_a_failed_training_is_told_in_the_run_s_words(services):
    body = {
        "modelname": "default",
        "b64img": services.qupath.text("grey8"),
        "b64lbl": services.qupath.text("labels"),
        "train": True,
        "eval": True,
        "lr": 0.5,
    }
    answer = services.qupath.post(services.url("elephant"), body)
    assert answer.status == 502
    assert "the fake broke" in answer.json()["detail"]


def test_others_are_answered_and_a_client_that_leaves_ends_nothing(services):
    """The training takes a while; meanwhile there is health, SAM, and a second training that waits for its turn."""
    body = {
        "modelname": "default",
        "b64img": services.qupath.text("grey8"),
        "b64lbl": services.qupath.text("labels"),
        "train": True,
        "eval": True,
        "lr": 0.9,
        "epochs": 1,
        "steps": 150,
    }
    leaving = threading.Thread(target=_post_and_leave, args=(services.gateway.address, body), daemon=True)
    leaving.start()
    until(lambda: any(run.state == common_pb2.RUN_STATE_RUNNING for run in services.runs()))
    assert services.qupath.get(f"{services.gateway.url}/healthz").status == 200
    assert services.qupath.get(f"{services.gateway.url}/sam/version/").status == 200
    second = services.qupath.train(services.url("elephant"), "grey16")
    assert second.status == 200, second.text
    newest, first = services.runs()
    assert first.state == common_pb2.RUN_STATE_SUCCEEDED
    assert newest.created_at.ToNanoseconds() >= first.ended_at.ToNanoseconds()
    assert newest.settings.initial_model == first.id
    assert len(services.images("unet")) == 2
    leaving.join()


def test_a_reset_while_it_trains_stays_a_reset(services):
    body = {
        "modelname": "default",
        "b64img": services.qupath.text("grey8"),
        "b64lbl": services.qupath.text("labels"),
        "train": True,
        "lr": 0.9,
        "steps": 80,
    }
    waiting = threading.Thread(target=services.qupath.post, args=(services.url("elephant"), body), daemon=True)
    waiting.start()
    until(lambda: any(run.state == common_pb2.RUN_STATE_RUNNING for run in services.runs()))
    _post_and_leave(services.gateway.address, {"modelname": "default"}, "/elephant/reset/")
    waiting.join(PATIENCE)
    assert services.runs()[0].state == common_pb2.RUN_STATE_SUCCEEDED
    assert services.qupath.infer(services.url("elephant"), "grey8").status == 409


def test_a_gateway_that_ends_while_training_leaves_the_model_to_the_next_one(services):
    body = {
        "modelname": "default",
        "b64img": services.qupath.text("grey8"),
        "b64lbl": services.qupath.text("labels"),
        "train": True,
        "lr": 0.9,
        "steps": 60,
        "epochs": 1,
    }
    home = services.orchestrator.home
    with Gateway(home / "second", CELLSPARSE_HOME=str(home)) as short:
        waiting = threading.Thread(target=_post_and_leave, args=(short.address, body), daemon=True)
        waiting.start()
        until(lambda: any(run.state == common_pb2.RUN_STATE_RUNNING for run in services.runs()))
    assert short.wait(PATIENCE) == 0
    found = until(lambda: (answer := services.qupath.infer(services.url("elephant"), "grey8")).status == 200 and answer)
    assert found.json()


def _post_and_leave(address: str, body: dict, path: str = "/elephant/") -> None:
    """Send a request, and close the connection soon after it has been read."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    time.sleep(2.0)
    connection.close()
