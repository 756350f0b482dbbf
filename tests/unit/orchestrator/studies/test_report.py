"""A study's report, as a pure function of its members."""

import csv
import io
import json

import pytest

from cellsparse_orchestrator.studies import report, states
from cellsparse_proto.v1 import common_pb2, study_pb2


def scores(f1):
    return [
        common_pb2.MatchingScore(iou=iou, tp=8, fp=1, fn=2, f1=f1 - iou / 10, ap=f1 / 2, precision=float("nan"))
        for iou in (0.5, 0.75)
    ]


def member(number, f1=None, **fields):
    found = {
        "number": number,
        "backend": "unet",
        "mode": 3,
        "background": 2,
        "k": 4,
        "run_id": f"run-{number}",
        "dataset_id": "ds-4",
        "annotated_cells": 16,
        "training_seconds": 10.0,
        "device": "cpu",
        "processes": 1,
        "settings": {"steps": "5"},
        **fields,
    }
    if f1 is None:
        return study_pb2.StudyMember(state=states.MEMBER_FAILED, reason=2, message="No, memory\nis left.", **found)
    return study_pb2.StudyMember(state=states.MEMBER_SUCCEEDED, scores=scores(f1), **found)


@pytest.fixture
def study():
    grid = study_pb2.StudyGrid(settings=[study_pb2.StudyAxis(name="steps", values=["5", "9"])], seeds=[0, 1])
    return study_pb2.Study(id="study-1", name="s", dataset_id="ds-1", grid=grid, split=3, state=states.SUCCEEDED)


def test_means_over_seeds_best_models_and_cost(study):
    members = [
        member(1, 0.8, seed=0),
        member(2, 0.6, seed=1),
        member(3, 0.9, settings={"steps": "9"}, device="cuda", training_seconds=3.0, processes=4),
        member(4, 0.9, k=0, dataset_id="ds-all", annotated_cells=90, settings={"steps": "9"}),
        member(5, 0.5, backend="stardist"),
        member(6),
    ]
    found = report.build(study, members)
    first = next(
        curve for curve in found["curves"] if curve["settings"] == {"steps": "5"} and curve["backend"] == "unet"
    )
    assert (first["seeds"], first["k"], first["mode"], first["background"]) == (2, 4, "minmax", "shifted")
    assert first["scores"][0]["f1"] == pytest.approx(0.65)
    assert (first["scores"][0]["f1_least"], first["scores"][0]["f1_most"]) == pytest.approx((0.55, 0.75))
    assert first["scores"][1]["tp"] == 8
    assert len(found["curves"]) == 4
    assert found["best"]["overall"]["number"] == 3  # equal F1 with fewer labelled cells
    assert found["best"]["by_backend"]["stardist"]["model_id"] == "run-5"
    cost = found["cost"]
    assert cost["gpu_seconds"] == 12.0 == found["members"][2]["gpu_seconds"]  # each of the four processes has a GPU
    assert cost["training_seconds_by_device"] == {"cpu": 50.0, "cuda": 3.0}
    assert cost["training_seconds_by_backend"] == {"unet": 43.0, "stardist": 10.0}
    assert cost["annotated_cells_by_label_set"] == {"ds-4": 16, "ds-all": 90}
    assert cost["annotated_cells_of_largest_label_set"] == 90
    assert [row["k"] for row in found["members"]] == [4, 4, 4, "all", 4, 4]


def test_the_report_is_json_and_csv_with_a_line_per_member(study):
    members = [member(1, 0.8), member(2), member(3, 0.7, mode=0, background=0, k=0, settings={})]
    found = report.build(study, members)
    assert json.loads(report.to_json(found)) == found
    assert report.to_json(report.build(study, members)) == report.to_json(found)
    rows = list(csv.DictReader(io.StringIO(report.to_csv(found).decode())))
    assert [row["state"] for row in rows] == ["succeeded", "failed", "succeeded"]
    assert (rows[0]["f1_0.50"], rows[0]["tp_0.75"], rows[0]["steps"]) == ("0.75", "8", "5")
    assert (rows[1]["reason"], rows[1]["message"], rows[1]["f1_0.50"]) == ("out_of_memory", "No, memory\nis left.", "")
    assert (rows[1]["model_id"], rows[2]["model_id"]) == ("", "run-3")
    assert (rows[2]["mode"], rows[2]["k"], rows[2]["steps"]) == ("", "", "")


def test_nothing_scored_is_a_report_too(study):
    found = report.build(study, [member(1, settings={})])
    assert (found["best"], found["curves"]) == ({"overall": None, "by_backend": {}}, [])
    assert report.to_csv(found).count(b"\n") >= 2
    assert report.build(study, [])["cost"]["training_seconds"] == 0.0
