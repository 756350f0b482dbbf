import json

import numpy as np
import pytest

from cellsparse.cli.app import run
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2

IMAGE = encode_tiff(np.arange(20, dtype=np.uint8).reshape(4, 5))


@pytest.fixture
def known(fake, make):
    """Two datasets, two runs and a model."""
    fake.state.datasets = [
        dataset_pb2.Dataset(id="ds-abc1", name="nuclei"),
        dataset_pb2.Dataset(id="ds-abd2", name="twin"),
    ]
    fake.state.runs = [
        make.run("run-1", "first", common_pb2.RUN_STATE_SUCCEEDED),
        make.run("run-2", "second", common_pb2.RUN_STATE_FAILED, "no cell is labelled"),
    ]
    fake.state.models = [orchestrator_pb2.Model(id="run-1", name="first", backend="unet")]
    fake.state.events = [
        make.event(1, common_pb2.RUN_STATE_STARTING),
        make.event(2, step=5, log=["one line"]),
        make.event(3, common_pb2.RUN_STATE_SUCCEEDED, step=10, log=["last line"]),
    ]
    return fake


def fill(folder):
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for name in "abc":
            (folder / kind / f"{name}.tif").write_bytes(IMAGE)
    return folder


ONE_DOCUMENT = [
    ["status"],
    ["dataset", "list"],
    ["dataset", "show", "nuclei"],
    ["dataset", "delete", "nuclei"],
    ["sparsify", "nuclei", "--k", "4"],
    ["train", "nuclei", "--backend", "unet", "--set", "steps=3", "--detach"],
    ["runs", "list"],
    ["runs", "show", "first"],
    ["runs", "cancel", "first"],
    ["models", "list"],
    ["models", "show", "first"],
    ["evaluate", "first", "nuclei"],
]


@pytest.mark.parametrize("command", ONE_DOCUMENT, ids=" ".join)
def test_json_is_one_document_and_nothing_else(known, capsys, command):
    assert run([*command, "--json"]) == 0
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ONE_DOCUMENT, ids=" ".join)
def test_text_names_what_it_is_about(known, capsys, command):
    assert run(command) == 0
    assert capsys.readouterr().out.strip()


def test_import_and_predict(known, capsys, tmp_path):
    folder = fill(tmp_path / "data")
    (folder / "images" / "lonely.tif").write_bytes(IMAGE)
    assert run(["dataset", "import", str(folder), "--name", "my nuclei", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert (document["name"], document["items"]) == ("my nuclei", 3)
    assert [path.endswith("lonely.tif") for path in document["unmatched"]] == [True]
    assert "lonely.tif" in printed.err

    command = ["predict", "first", str(folder / "images" / "a.tif"), "--out", str(tmp_path / "out"), "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["cells"] == 1
    label = decode_image((tmp_path / "out" / "a.tif").read_bytes(), max_pixels=100).array
    assert (label.dtype, label[0, 0]) == (np.uint16, 3)
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*command, "--force"]) == 0
    into_itself = ["predict", "first", str(folder / "images" / "a.tif"), "--out", str(folder / "images"), "--force"]
    assert run(into_itself) == 2
    assert (folder / "images" / "a.tif").read_bytes() == IMAGE


def test_export_never_overwrites_unasked(known, capsys, tmp_path):
    target = tmp_path / "model.zip"
    command = ["export", "first", "--out", str(target), "--json"]
    assert run(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["file"], document["size"]) == ("native", str(target), 10)
    target.write_bytes(b"mine")
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert run([*command, "--force", "--format", "saved-model"]) == 0
    assert target.read_bytes() == b"whole file"


@pytest.mark.parametrize(
    ("kind", "suffix", "content"), [("geojson", ".geojson", b"{}"), ("roi", ".zip", b"PK")], ids=["geojson", "roi"]
)
def test_predict_formats_and_options(known, capsys, tmp_path, kind, suffix, content):
    images = [str(path) for path in sorted((fill(tmp_path / "data") / "images").iterdir())]
    out = tmp_path / "out"
    command = ["predict", "first", *images, "--out", str(out), "--format", kind, "--channel", "1", "--min-pixels", "7"]
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines() == [f"{out / name}{suffix}  1 cells" for name in "abc"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {f"{name}{suffix}": content for name in "abc"}
    assert {(request.channel, request.min_pixels) for request in known.state.predicted} == {(1, 7)}
    (out / f"b{suffix}").write_bytes(b"mine")
    (out / f"a{suffix}").unlink()
    assert run(command) == 2
    assert [path.name for path in sorted(out.iterdir())] == [f"b{suffix}", f"c{suffix}"]
    assert (out / f"b{suffix}").read_bytes() == b"mine"


@pytest.mark.parametrize("options", [["--format", "svg"], ["--channel", "16"], ["--min-pixels", "-1"]], ids=" ".join)
def test_predict_options_that_cannot_be(known, capsys, tmp_path, options):
    image = tmp_path / "a.tif"
    image.write_bytes(IMAGE)
    assert run(["predict", "first", str(image), "--out", str(tmp_path / "out"), *options]) == 2
    assert options[0] in capsys.readouterr().err
    assert not known.state.predicted


def test_one_bad_image_does_not_lose_the_others(known, capsys, tmp_path):
    folder = fill(tmp_path / "data") / "images"
    (folder / "b.tif").write_bytes(b"no image")
    images = [str(folder / f"{name}.tif") for name in ("a", "b", "missing", "c")]
    command = ["predict", "first", *images, "--out", str(tmp_path / "out"), "--force"]
    assert run(command) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert f"{folder / 'b.tif'}: image is neither TIFF nor PNG" in printed.err
    assert "missing.tif" in printed.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]
    assert run([*command, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [entry["cells"] for entry in document["predictions"]] == [1, 1]
    assert [entry["image"] for entry in document["failures"]] == images[1:3]


@pytest.mark.parametrize(
    "command", [["runs", "watch", "first"], ["train", "nuclei", "--backend", "unet"]], ids=" ".join
)
def test_streams_are_json_lines(known, capsys, command):
    assert run([*command, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["sequence"] for line in lines if line["type"] == "event"] == [1, 2, 3]
    assert lines[-1]["type"] == "run"
    assert lines[-1]["state"] == "succeeded"


def test_watch_prints_plain_lines_without_a_terminal(known, capsys):
    assert run(["runs", "watch", "first"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "running  step 5/10  loss 0.5" in lines[1]
    assert lines[-1] == "run run-1 succeeded"


def test_logs(known, capsys):
    assert run(["runs", "logs", "first"]) == 0
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == ["one line", "last line"]


def test_not_a_number_becomes_null(known, capsys):
    assert run(["evaluate", "first", "nuclei", "--json", "--channels", "GFP, 0"]) == 0
    assert list(known.state.evaluated.channels) == ["GFP", "0"]
    assert json.loads(capsys.readouterr().out)["scores"][0]["f1"] is None


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["runs", "watch", "second"], 1, "no cell is labelled"),
        (["bogus"], 2, "bogus"),
        (["train", "nuclei", "--set", "steps"], 2, "KEY=VALUE"),
        (["train", "nuclei", "--set", "speed=9"], 2, "learning_rate: above 0 to 1"),
        (["train", "nuclei", "--backend", "sam"], 2, "cellpose, stardist, unet"),
        (["train", "nuclei", "--preset", "huge"], 2, "fast, paper"),
        (["sparsify", "nuclei"], 2, "exactly one of"),
        (["sparsify", "nuclei", "--k", "0"], 2, "1 to 65535"),
        (["dataset", "import", "/nowhere"], 2, "/nowhere is not a folder"),
        (["dataset", "import"], 2, "folder"),
        (["predict", "first", "/nowhere.tif", "--out", "/nowhere/model.zip"], 2, "/nowhere.tif"),
        (["dataset", "show", "ds-ab"], 2, "ds-abc1, ds-abd2"),
        (["dataset", "show", "../../x"], 3, "'../../x'"),
        (["runs", "show", "nothing"], 3, "cellsparse runs list"),
        (["export", "first", "--out", "/nowhere/model.zip", "--format", "keras"], 2, "torchscript"),
        (["status", "--address", "127.0.0.1:1"], 4, "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_codes_and_errors(known, capsys, command, code, said):
    assert run(command) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert not printed.out or code == 1
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("text", ["ds-abc1", "nuclei", "ds-abc"])
def test_datasets_by_id_name_or_beginning(known, capsys, text):
    assert run(["dataset", "show", text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "ds-abc1"


def test_a_name_that_two_share_is_ambiguous(known, capsys):
    known.state.datasets.append(dataset_pb2.Dataset(id="ds-zzz", name="nuclei"))
    assert run(["dataset", "show", "nuclei"]) == 2
    assert "ds-abc1, ds-zzz" in capsys.readouterr().err


def test_status_is_unavailable_while_a_service_is_not_healthy(known, capsys):
    known.state.healthy = False
    assert run(["status", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["services"][0]["healthy"] is False


def test_help_documents_the_exit_codes(capsys):
    assert run(["--help"]) == 0
    assert "130 detached" in capsys.readouterr().out
