import json
import subprocess
import sys

import numpy as np
import pytest
from support.limits import PATIENCE

from cellsparse.datasets import ItemArrays
from cellsparse.demo import source
from cellsparse.demo.__main__ import run
from cellsparse.demo.results import Result, table, write_report
from cellsparse.errors import InvalidArgument
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, sparsifier_pb2, trainer_pb2


def test_the_nuclei_of_stardist_are_cut_without_overlap():
    items = source.demo_items(None)
    assert [item.split for item in items] == ["train", "train", "train", "val", "test"]
    assert [item.image.shape for item in items] == [(256, 256)] * 2 + [(256, 128)] * 2 + [(256, 256)]
    used = np.zeros((512, 512), int)
    for windows in source.cut(512, 512).values():
        for window in windows:
            used[window] += 1
    assert (used == 1).all()


def test_odd_sizes_are_cut_without_overlap_too():
    used = np.zeros((101, 203), int)
    for windows in source.cut(101, 203).values():
        for window in windows:
            used[window] += 1
    assert (used == 1).all()


def fill(folder, count, label):
    for kind, array in (("images", np.zeros(label.shape, np.uint8)), ("masks", label)):
        (folder / kind).mkdir(parents=True)
        for index in range(count):
            (folder / kind / f"{index}.tif").write_bytes(encode_tiff(array))


def cells(size=160):
    grid = np.arange(size * size // 256, dtype=np.uint16).reshape(size // 16, size // 16) + 1
    label = np.kron(grid, np.ones((16, 16), np.uint16))
    label[::16], label[:, ::16] = 0, 0
    return label


def test_a_folder_of_one_image_is_cut_and_one_of_three_is_split(tmp_path):
    fill(tmp_path / "one", 1, cells())
    assert [item.split for item in source.demo_items(tmp_path / "one")] == ["train", "train", "train", "val", "test"]
    fill(tmp_path / "three", 3, cells())
    assert sorted(item.split for item in source.demo_items(tmp_path / "three")) == ["test", "train", "val"]


def test_folders_that_hold_too_little(tmp_path):
    fill(tmp_path / "small", 1, cells(64))
    with pytest.raises(InvalidArgument, match="64 x 64"):
        source.demo_items(tmp_path / "small")
    label = cells()
    label[80:, 80:] = 0
    fill(tmp_path / "empty", 1, label)
    with pytest.raises(InvalidArgument, match="test split"):
        source.demo_items(tmp_path / "empty")


def test_a_bad_folder_is_one_sentence_and_exit_2(tmp_path):
    command = [sys.executable, "-m", "cellsparse.demo", "--data", "/nowhere", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: /nowhere is not a folder.\n"
    assert not (tmp_path / "out").exists()


def test_a_home_that_no_demo_made_is_never_deleted(tmp_path, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").touch()
    assert run(["--out", str(tmp_path)]) == 2
    assert (tmp_path / "home" / "precious").exists()
    assert "was not made by the demo" in capsys.readouterr().err


@pytest.fixture
def result():
    run = orchestrator_pb2.Run(id="run-1", backend="unet", state=common_pb2.RUN_STATE_SUCCEEDED)
    run.started_at.FromSeconds(100)
    run.ended_at.FromMilliseconds(165_500)
    events = [
        trainer_pb2.TrainingEvent(step=5, losses={"loss": 1.0}, peak_memory_mib=700.04),
        trainer_pb2.TrainingEvent(step=10, losses={"loss": 0.5}, validation={"score": 0.8}, peak_memory_mib=650),
    ]
    scores = [common_pb2.MatchingScore(iou=0.5, precision=1.0, recall=0.5, f1=2 / 3, ap=0.5, pq=0.4)]
    return Result(run=run, events=events, report=trainer_pb2.EvaluationReport(scores=scores))


@pytest.fixture
def sparse():
    settings = sparsifier_pb2.SparsifySettings(
        mode=sparsifier_pb2.SELECTION_MODE_MINMAX,
        k=4,
        background=sparsifier_pb2.BACKGROUND_RULE_SHIFTED,
        background_distance=10,
    )
    return dataset_pb2.Dataset(train_cells=24, cells=30, sparsify=settings)


def test_report(tmp_path, result, sparse):
    write_report(tmp_path / "report.json", [result], sparse, 99.96)
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "total_seconds": 100.0,
        "runs": [
            {
                "backend": "unet",
                "labels": "minmax k=4, shifted d=10",
                "labelled_cells": 24,
                "steps": 10,
                "seconds": 65.5,
                "peak_memory_mib": 700.0,
                "scores": [{"iou": 0.5, "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "ap": 0.5, "pq": 0.4}],
            }
        ],
    }
    assert table([result], sparse).row_count == 1


def test_pictures(tmp_path, result):
    from cellsparse.demo.overlays import matches, write_overlay
    from cellsparse.demo.plots import write_plots

    label = cells().astype(np.int32)
    found = np.where(label > 3, label, 0)
    found[:3, :3] = 500
    assert set(matches(label, found)) == {int(cell) for cell in np.unique(label[label > 3])}
    item = ItemArrays(name="a", split="test", image=label.astype(np.uint16), label=label)
    sparse_item = ItemArrays(name="b", split="train", image=item.image, label=np.where(label > 50, -1, label))
    paths = [write_overlay(tmp_path / "o.png", title="x", trained=sparse_item, test=item, predicted=found)]
    paths += write_plots(tmp_path, [result])
    for path in paths:
        picture = decode_image(path.read_bytes(), max_pixels=2**24).array
        assert picture.shape[1] <= 1400
        assert picture.std() > 10


def test_pictures_of_nothing_found(tmp_path):
    from cellsparse.demo.overlays import write_overlay

    label = cells().astype(np.int32)
    item = ItemArrays(name="a", split="test", image=np.zeros((*label.shape, 3), np.uint8), label=label)
    path = write_overlay(tmp_path / "o.png", title="x", trained=item, test=item, predicted=np.zeros_like(label))
    assert path.stat().st_size > 1000
