"""The script for QuPath 0.5 to 0.7 against a real gateway.

QuPath itself cannot be installed by a package manager, so the script runs in Groovy 4 and 5, as QuPath has them, with
doubles of the classes of QuPath and JavaFX that it calls. Their names and signatures are those of QuPath's sources.
"""

import json

import numpy as np
import pytest
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator
from support.qupath import NO_GROOVY, SCRIPT, SOURCES, compile_java, groovy_jars, java
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

SIZE = 64
IMAGE, LABEL = blobs(SIZE)
CELLS = [["Foreground", 10, 10, 12, 12], ["Foreground", 42, 10, 12, 12], ["Background", 0, 28, 64, 6]]


class User:
    """Somebody at QuPath."""

    def __init__(self, folder, jars, server):
        self._folder = folder
        self._jars = jars
        self._server = server
        doubles = SOURCES / "qupath_doubles"
        compile_java(folder / "doubles", sorted(doubles.rglob("*.java")), jars)
        (folder / "image.tif").write_bytes(encode_tiff(IMAGE))

    def run(self, *steps, project="my slides"):
        """Run the script once per step; returns dialogs, texts of the last window, objects, and whether it is open.

        A step holds what is typed, and `drawn`, `selected` and `cancel` (see RunScript.java).
        """
        plan = {"drawn": CELLS, "steps": [self._step(**step) for step in steps or [{}]]}
        path = ":".join(map(str, [self._folder / "doubles", *self._jars]))
        command = [f"-Dproject={project}", "-cp", path, "RunScript", SCRIPT, self._folder / "image.tif"]
        return json.loads(java([*command, SIZE, SIZE, PATIENCE, json.dumps(plan)]).strip().splitlines()[-1])

    def _step(self, *, drawn=None, selected=None, cancel=False, **typed):
        typed = {"address": self._server, "backend": "U-Net (ELEPHANT)", **typed}
        return {"typed": typed, "drawn": drawn, "selected": selected, "cancel": cancel}


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("script") / "home") as orchestrator:
        orchestrator.healthy("unet")
        yield orchestrator


@pytest.fixture(scope="module", params=["4", "5"])
def user(tmp_path_factory, orchestrator, request):
    jars = groovy_jars()
    if request.param not in jars:
        pytest.skip(NO_GROOVY)
    with Gateway(orchestrator.home) as gateway:
        yield User(tmp_path_factory.mktemp("user"), jars[request.param], gateway.url)


def boxes(objects):
    return sorted((int(one["x"]), int(one["y"]), int(one["width"]), int(one["height"])) for one in objects)


def runs(orchestrator):
    return orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs


def test_a_user_trains_twice_and_then_only_looks(user, orchestrator, request):
    before = len(runs(orchestrator))
    project = request.node.name
    seen = user.run({}, {}, project=project)
    assert seen["dialogs"] == ["info: 4 cells found"] * 2
    assert not seen["open"]
    assert any(text.startswith(("Training: step", "Waiting")) for text in seen["progress"])
    found = [one for one in seen["objects"] if one["found"]]
    expected = []
    for cell in range(1, LABEL.max() + 1):
        rows, columns = np.nonzero(cell == LABEL)
        expected.append((columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1))
    assert boxes(found) == sorted(expected), "the second run replaces what the first one found"
    assert all(one["class"] == "" and one["annotation"] for one in found)
    assert len(seen["objects"]) == len(CELLS) + len(found), "what was drawn stays"
    second, first = runs(orchestrator)[: len(runs(orchestrator)) - before]
    assert second.settings.initial_model == first.id

    only = user.run({"task": "Find all cells with the last model", "annotations": False}, project=project)
    assert only["dialogs"] == ["info: 4 cells found"]
    assert not any(one["annotation"] for one in only["objects"] if one["found"])
    assert len(runs(orchestrator)) == before + 2


def test_cancel_ends_the_training_on_the_server(user, orchestrator, request):
    seen = user.run({"cancel": True, "fresh": True}, project=request.node.name)
    assert seen["dialogs"] in ([], ["info: 4 cells found"])  # the training may have been quicker than the click
    assert not seen["open"]
    assert runs(orchestrator)[0].state in (common_pb2.RUN_STATE_CANCELLED, common_pb2.RUN_STATE_SUCCEEDED)


def test_what_goes_wrong_is_told_in_one_sentence(user, request):
    wrong = [
        ({"task": "Find all cells with the last model"}, "Train first"),
        ({"address": "localhost:8000"}, "it begins with http:// or https://"),
        ({"address": "http://127.0.0.1:9"}, "does not answer"),
        ({"channel": 7}, "The image has 1 channels; channel 7 does not exist."),
        ({"selected": [500, 500, 9, 9]}, "lies outside the image"),
        ({"backend": "StarDist"}, "stardist"),
        ({"drawn": [["Background", 0, 0, 9, 9]]}, "No annotation has the class Foreground (spelled so)"),
    ]
    seen = user.run(*(step for step, _ in wrong), project=request.node.name)
    for dialog, (_, said) in zip(seen["dialogs"], wrong, strict=True):
        assert dialog.startswith("error: ")
        assert said in dialog
    assert not seen["open"]
