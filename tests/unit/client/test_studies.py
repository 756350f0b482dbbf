"""Studies through SDK and command line, against the fake orchestrator."""

import json

import pytest

import cellsparse
from cellsparse.cli.app import run
from cellsparse.cli.exits import Exit
from cellsparse.errors import InvalidArgument, RunFailedError
from cellsparse.study_plots import write_plots
from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2, study_pb2

SUCCEEDED, RUNNING = study_pb2.STUDY_STATE_SUCCEEDED, study_pb2.STUDY_STATE_RUNNING


def member(number, state=study_pb2.MEMBER_STATE_SUCCEEDED, **fields):
    scores = [common_pb2.MatchingScore(iou=0.5, f1=0.75, ap=0.6, tp=3, fp=1, fn=1)]
    return study_pb2.StudyMember(
        number=number,
        backend="unet",
        mode=3,
        background=2,
        k=4,
        run_id=f"run-{number}",
        state=state,
        scores=scores if state == study_pb2.MEMBER_STATE_SUCCEEDED else [],
        training_seconds=65.0,
        settings={"steps": "9"},
        **fields,
    )


def curve(mode="minmax", background="shifted", k=4, f1=0.5, backend="unet", settings=None, spread=0.0):
    score = {"iou": 0.5, "f1": f1, "ap": f1 / 2, "tp": 5.0, "fp": 2.5, "fn": 1.0}
    return {
        "backend": backend,
        "mode": mode,
        "background": background,
        "k": k,
        "settings": settings or {},
        "seeds": 2,
        "annotated_cells": 8,
        "scores": [{**score, "f1_least": f1 - spread, "f1_most": f1 + spread}],
    }


def report(curves):
    best = {"model_id": "run-1", "backend": "unet", "f1": 0.75, "iou": 0.5}
    return {
        "study": {"split": "test"},
        "members": [],
        "curves": curves,
        "best": {"overall": best, "by_backend": {"unet": best}},
        "cost": {"training_seconds": 65.0, "gpu_seconds": 130.0, "annotated_cells_of_largest_label_set": 8},
    }


@pytest.fixture
def known(fake):
    fake.state.datasets = [dataset_pb2.Dataset(id="ds-1", name="nuclei")]
    done = study_pb2.Study(
        id="study-1", name="grid", members=3, succeeded=2, failed=1, state=SUCCEEDED, message="Done."
    )
    fake.state.studies = [done, study_pb2.Study(id="study-2", name="second", members=3, state=RUNNING)]
    failed = member(3, study_pb2.MEMBER_STATE_FAILED, message="no memory")
    fake.state.members = [member(1), member(2), failed]
    fake.state.changes = [
        study_pb2.WatchStudyResponse(study=study_pb2.Study(id="study-1", members=3), sequence=3),
        study_pb2.WatchStudyResponse(study=done, members=fake.state.members, sequence=7),
    ]
    fake.state.report = report([curve()])
    return fake


def test_a_grid_is_asked_for_in_words(known):
    with cellsparse.Client() as client:
        handle = client.study(
            "ds-1",
            preset="paper",
            modes=["min", "random"],
            backgrounds=["ring"],
            k=[4, "all"],
            backends=["unet"],
            seeds=[1, 2],
            distance=3,
            settings={"steps": [5, 9], "preset": "paper", "flip": True, "class_weights": [[1, 2, 3]]},
            split="val",
            priority=2,
            max_attempts=1,
        )
        assert handle.wait().succeeded == 2
        assert [found.number for found in handle.members()] == [1, 2, 3]
        handle.pause()
        handle.resume()
        handle.cancel()
    (request,) = known.state.created
    grid = request.grid
    assert grid.preset == study_pb2.STUDY_PRESET_PAPER
    assert list(grid.modes) == [sparsifier_pb2.SELECTION_MODE_MIN, sparsifier_pb2.SELECTION_MODE_RANDOM]
    assert list(grid.backgrounds) == [sparsifier_pb2.BACKGROUND_RULE_RING]
    assert (list(grid.k), list(grid.backends), list(grid.seeds)) == ([4, 0], ["unet"], [1, 2])
    assert {axis.name: list(axis.values) for axis in grid.settings} == {
        "steps": ["5", "9"],
        "preset": ["paper"],
        "flip": ["true"],
        "class_weights": ["1,2,3"],
    }
    assert (grid.background_distance, request.split, request.priority, request.max_attempts) == (3, 2, 2, 1)
    assert known.state.moved == [("pause", "study-1"), ("resume", "study-1"), ("cancel", "study-1")]


WRONG = [
    ({"modes": ["darkest"]}, "modes is 'darkest'; allowed: min, max, minmax, random"),
    ({"k": ["many"]}, "k is 'many'"),
    ({"k": [0]}, 'or "all"'),
    ({"seeds": [-1]}, "seeds is -1"),
    ({"distance": 0}, "distance is 0"),
    ({"preset": "mine"}, "allowed: paper"),
    ({"split": "tests"}, "split is 'tests'"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_what_no_grid_holds_is_refused(known, wrong, sentence):
    with cellsparse.Client() as client, pytest.raises(InvalidArgument) as caught:
        client.study("ds-1", **wrong)
    assert sentence in caught.value.message
    assert not known.state.created


def test_a_watch_goes_on_after_an_outage(known, monkeypatch):
    monkeypatch.setattr("cellsparse.reconnect.FIRST_PAUSE_SECONDS", 0.01)
    known.state.break_after = 3
    with cellsparse.Client() as client:
        assert [change.sequence for change in client.watch_study("study-1")] == [3, 7]
    assert known.state.watches == [0, 3]


def test_a_study_without_scores_raises(known):
    known.state.studies[0].state = study_pb2.STUDY_STATE_FAILED
    with cellsparse.Client() as client, pytest.raises(RunFailedError, match="study-1 failed: Done"):
        client.study("ds-1", backends=["unet"]).wait()


COMMANDS = [
    ["study", "run", "nuclei", "--preset", "paper", "--detach"],
    ["study", "list"],
    ["study", "show", "grid"],
    ["study", "pause", "study-1"],
    ["study", "resume", "study-1"],
    ["study", "cancel", "study-1"],
    ["study", "delete", "study-1"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_print_text_or_one_document(known, capsys, command):
    assert run(command) == 0
    assert capsys.readouterr().out.strip()
    assert run([*command, "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_run_takes_axes_and_watches(known, capsys):
    axes = ["--modes", "min,max", "--backgrounds", "none", "--k", "1,all", "--backends", "unet", "--seeds", "3,4"]
    settings = ["--set", "steps=5,9", "--set", "cellpose.channels=8,256;16,256", "--set", "class_weights=1,2,3;"]
    assert run(["study", "run", "nuclei", *axes, *settings]) == 0
    grid = known.state.created[0].grid
    assert (list(grid.k), list(grid.seeds), len(grid.modes)) == ([1, 0], [3, 4], 2)
    assert {axis.name: list(axis.values) for axis in grid.settings} == {
        "steps": ["5", "9"],
        "cellpose.channels": ["8,256", "16,256"],
        "class_weights": ["1,2,3"],
    }
    printed = capsys.readouterr().out
    assert "F1 0.750 after 1:05" in printed
    assert "failed: no memory" in printed
    assert printed.strip().endswith("study study-1 succeeded: Done.")


def test_without_a_preset_all_backends_are_taken(known):
    assert run(["study", "run", "nuclei", "--detach"]) == 0
    assert list(known.state.created[0].grid.backends) == ["cellpose", "stardist", "unet"]


def test_a_failed_study_is_an_exit_code(known, capsys):
    known.state.changes[-1].study.state = study_pb2.STUDY_STATE_CANCELLED
    known.state.studies[0].state = study_pb2.STUDY_STATE_CANCELLED
    assert run(["study", "watch", "study-1"]) == Exit.RUN_FAILED
    assert run(["study", "run", "nuclei", "--set", "steps"]) == Exit.USAGE
    assert run(["study", "show", "other"]) == Exit.NOT_FOUND


def test_a_report_is_written_with_its_plots(known, capsys, tmp_path):
    assert run(["study", "report", "grid", "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"{name}.{kind}" for name in ("f1", "ap", "counts") for kind in ("png", "svg")}
    assert names == plots | {"report.json", "members.csv"}
    assert {path.rpartition("/")[2] for path in document["written"]} == names
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == known.state.report
    assert run(["study", "report", "second", "--out", str(tmp_path / "early")]) == 0
    shown = capsys.readouterr()
    assert "has not ended" in shown.err
    assert "1:05 of training, 130 GPU-seconds, 8 annotated cells" in shown.out


def test_without_matplotlib_a_report_is_written_without_plots(known, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["study", "report", "grid", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.glob("*.*")} == {"report.json", "members.csv"}
    shown = capsys.readouterr()
    assert "members.csv and 0 plots" in shown.out
    assert "pip install 'cellsparse[plots]'" in shown.err


def test_plots_of_the_papers_grid_and_of_varied_settings(tmp_path):
    ks = (1, 64, "all")
    curves = [
        curve(mode, background, k, 0.1 * place, backend, {"steps": steps}, 0.05)
        for mode in ("min", "minmax")  # every mode more is more panels of the same kind
        for background in ("none", "shifted")
        for place, k in enumerate(ks)
        for backend in ("cellpose", "unet")
        for steps in ("5", "9")
    ]
    written = write_plots(tmp_path, report(curves))
    assert {path.name for path in written if path.suffix == ".svg"} == {
        f"{name}-steps=5.svg".replace("5", steps) for name in ("f1", "ap", "counts") for steps in ("5", "9")
    }
    assert all(path.stat().st_size > 1000 for path in written)
    # Where all cells were kept there is a line, in the counts, too: matplotlib notes the texts of a legend.
    for name, line in (("f1", "all cells"), ("counts", "all cells, none"), ("counts", "all cells, shifted")):
        assert f"<!-- {line} -->" in (tmp_path / f"{name}-steps=5.svg").read_text()
    # Nothing to draw is no error: no member has scores, or all train on the dataset's own labels.
    assert write_plots(tmp_path, report([])) == []
    assert write_plots(tmp_path, report([curve(mode="", background="", k="")])) == []
