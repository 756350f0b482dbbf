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

    def run(self, *, runs=1, drawn=CELLS, selected=None, cancel=False, **typed):
        """Run the script; returns dialogs, texts of the progress window, objects, and whether a window is open."""
        typed = {"address": self._server, "backend": "U-Net (ELEPHANT)", **typed}
        plan = {"typed": typed, "runs": runs, "drawn": drawn, "selected": selected, "cancel": cancel}
        path = ":".join(map(str, [self._folder / "doubles", *self._jars]))
        command = ["-cp", path, "RunScript", SCRIPT, self._folder / "image.tif", SIZE, SIZE, PATIENCE, json.dumps(plan)]
        return json.loads(java(command).strip().splitlines()[-1])


@pytest.fixture(params=["4", "5"])
def jars(request):
    jars = groovy_jars()
    if request.param not in jars:
        pytest.skip(NO_GROOVY)
    return jars[request.param]


@pytest.fixture
def orchestrator(tmp_path):
    with Orchestrator(tmp_path / "home") as orchestrator:
        orchestrator.healthy("unet")
        yield orchestrator


@pytest.fixture
def user(tmp_path, orchestrator, jars):
    with Gateway(tmp_path / "home") as gateway:
        yield User(tmp_path, jars, gateway.url)


def boxes(objects):
    return sorted((int(one["x"]), int(one["y"]), int(one["width"]), int(one["height"])) for one in objects)


def runs(orchestrator):
    return orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs


def test_a_user_trains_twice_and_then_only_looks(user, orchestrator):
    seen = user.run(runs=2)
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
    second, first = runs(orchestrator)
    assert second.settings.initial_model == first.id

    only = user.run(task="Find all cells with the last model", annotations=False)
    assert only["dialogs"] == ["info: 4 cells found"]
    assert not any(one["annotation"] for one in only["objects"] if one["found"])
    assert len(runs(orchestrator)) == 2


def test_cancel_ends_the_training_on_the_server(user, orchestrator):
    seen = user.run(cancel=True, fresh=True)
    assert seen["dialogs"] in ([], ["info: 4 cells found"])  # the training may have been quicker than the click
    assert not seen["open"]
    (run,) = runs(orchestrator)
    assert run.state in (common_pb2.RUN_STATE_CANCELLED, common_pb2.RUN_STATE_SUCCEEDED)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"drawn": [["Background", 0, 0, 9, 9]]}, "No annotation has the class Foreground (spelled so)"),
        ({"task": "Find all cells with the last model"}, "Train first"),
        ({"address": "localhost:8000"}, "it begins with http:// or https://"),
        ({"channel": 7}, "The image has 1 channels; channel 7 does not exist."),
        ({"selected": [500, 500, 9, 9]}, "lies outside the image"),
        ({"backend": "StarDist"}, "stardist"),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence(user, plan, said):
    seen = user.run(**plan)
    (dialog,) = seen["dialogs"]
    assert dialog.startswith("error: ")
    assert said in dialog
    assert not seen["open"]
