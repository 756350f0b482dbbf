"""The main job through the command line, with every backend, on the real stack."""

import json
import signal
import time

import numpy as np
import pytest
from support.limits import PATIENCE

import cellsparse
from cellsparse_common.imaging.images import decode_image

from .conftest import TINY

SLOW = ["--set", "steps=100000", "--set", "crop_size=32", "--set", "batch_size=1", "--set", "device=cpu"]


@pytest.fixture(scope="module")
def sparse(stack, folder):
    """Name of a sparse dataset made from the folder's."""
    made = stack.json("dataset", "import", str(folder), "--name", "discs")
    assert (made["items"], made["train_items"], made["val_items"], made["test_items"]) == (5, 3, 1, 1)
    assert made["cells"] == 45
    kept = stack.json("sparsify", "discs", "--mode", "minmax", "--k", "2", "--background", "shifted", "--name", "few")
    assert kept["train_cells"] == 12
    assert kept["parent_id"] == made["id"]
    return "few"


def test_up_again_changes_nothing(stack):
    before = json.loads((stack.home / "orchestrator.json").read_text())
    again = stack.json("up")
    assert again["started"] is False
    assert {service["name"] for service in again["services"]} >= {"orchestrator", "sparsifier", "cellpose", "unet"}
    assert all(service["healthy"] for service in again["services"])
    assert json.loads((stack.home / "orchestrator.json").read_text()) == before


@pytest.mark.parametrize("backend", ["unet", "cellpose", "stardist"])
def test_train_predict_evaluate(stack, sparse, folder, backend, tmp_path):
    watched = stack.run("train", sparse, "--backend", backend, *TINY, "--name", f"tiny {backend}", "--json")
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    run = lines[-1]
    assert (run["type"], run["state"], run["backend"]) == ("run", "succeeded", backend)
    assert max(line["training"]["step"] for line in lines if line["type"] == "event" and line["training"]) == 2

    image = folder / "images" / "field-0.tif"
    done = stack.json("predict", f"tiny {backend}", str(image), "--out", str(tmp_path / "labels"))
    label = decode_image((tmp_path / "labels" / "field-0.tif").read_bytes(), max_pixels=2**20).array
    assert label.shape == (96, 96)
    assert done["predictions"][0]["cells"] == np.unique(label[label > 0]).size

    report = stack.json("evaluate", run["id"], "discs", "--split", "test")
    assert [round(row["iou"], 2) for row in report["scores"]] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]
    assert all(row["tp"] + row["fn"] == 9 for row in report["scores"])
    assert stack.run("runs", "logs", run["id"]).stdout.strip()
    assert run["id"] in [model["id"] for model in stack.json("models", "list", "--backend", backend)]


def test_a_model_leaves_comes_back_and_is_trained_further(stack, sparse, folder, tmp_path):
    """Export, import under another name, the same predictions; then a run that starts from it."""
    stack.run("train", sparse, "--backend", "unet", *TINY, "--name", "origin")
    stack.run("export", "origin", "--out", str(tmp_path / "origin.zip"))
    imported = stack.json("models", "import", str(tmp_path / "origin.zip"), "--backend", "unet", "--name", "back")
    image = str(folder / "images" / "field-1.tif")
    for name in ("origin", "back"):
        stack.run("predict", name, image, "--out", str(tmp_path / name))
    assert (tmp_path / "origin" / "field-1.tif").read_bytes() == (tmp_path / "back" / "field-1.tif").read_bytes()

    watched = stack.run("train", sparse, "--backend", "unet", *TINY, "--start", "back", "--name", "further", "--json")
    run = json.loads(watched.stdout.splitlines()[-1])
    assert run["state"] == "succeeded"
    assert "the start" in run["message"].lower()
    shown = next(model for model in stack.json("models", "list") if model["id"] == run["id"])
    assert shown["initial_model"] == imported["id"]
    compared = stack.run("evaluate", "further", "discs", "--split", "test", "--against", "back").stdout
    assert "further" in compared or run["id"] in compared
    stack.run("models", "import", image, "--backend", "unet", "--name", "none", code=2)


def test_ctrl_c_detaches_and_cancel_stops(stack, sparse):
    watching = stack.start(["train", sparse, "--backend", "unet", *SLOW, "--name", "long"])
    try:
        for line in watching.stdout:
            if "step" in line:
                break
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=PATIENCE)
    finally:
        watching.kill()
    assert watching.returncode == 130
    assert "goes on" in err
    assert "Traceback" not in out + err
    time.sleep(1)
    assert stack.json("runs", "show", "long")["state"] == "running"
    stack.json("runs", "cancel", "long")
    ended = stack.run("runs", "watch", "long", code=1, timeout=PATIENCE)
    assert "cancelled" in ended.stdout


def test_the_sdk_reads_what_the_command_line_made(stack, sparse, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_HOME", str(stack.home))
    monkeypatch.delenv("CELLSPARSE_ADDRESS", raising=False)
    with cellsparse.Client() as client:
        dataset = next(entry for entry in client.datasets() if entry.name == sparse)
        items = list(client.dataset_items(dataset.id))
        arrays = client.dataset_item(dataset.id, items[0].name)
    assert len(items) == 5
    assert arrays.image.shape == arrays.label.shape == (96, 96)
    assert set(np.unique(arrays.label)) >= {-1, 0}


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["train", "few", "--backend", "unet", "--set", "crop_size=33"], 2, "crop_size"),
        (["train", "nothing", "--backend", "unet"], 3, "nothing"),
        (["dataset", "show", "../../x"], 3, "../../x"),
        (["predict", "nothing", __file__, "--out", "/tmp/none"], 3, "nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_sentence(stack, sparse, command, code, said):
    assert said in stack.run(*command, code=code).stderr


def test_a_file_that_is_no_image_is_refused_and_nothing_is_kept(stack, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.tif").write_bytes(b"II*\x00 not a picture")
    before = stack.json("dataset", "list")
    assert "error:" in stack.run("dataset", "import", str(tmp_path), code=2).stderr
    assert stack.json("dataset", "list") == before
