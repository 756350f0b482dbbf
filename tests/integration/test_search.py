"""Searches with real processes: orchestrator, a trainer without a framework, and a driver that is killed."""

import csv
import json
import os
import subprocess
import sys

import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, until

import cellsparse
from cellsparse import search
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

# Of the fake backend's settings these make models better or worse: it finds cells by a threshold, and the percentile
# says how bright a cell is. A learning rate of 0.9 sleeps 0.05 s in every step, so that there is time to cancel a run.
OVER = "upper_percentile=50..100"
SETTINGS = ["--set", "steps=30", "--set", "validate_every_steps=4", "--set", "learning_rate=0.9"]
TRIALS = 8


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    """Runs need not load all modules again: what is tested here is what asks for them."""
    home = tmp_path_factory.mktemp("search") / "home"
    with Orchestrator(home, CELLSPARSE_SLOTS="2", CELLSPARSE_WARM_SECONDS="60") as running:
        yield running


@pytest.fixture
def home(orchestrator, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_HOME", str(orchestrator.home))
    return orchestrator.home


@pytest.fixture
def drive(orchestrator, home):
    """Starts `cellsparse search run` as a process of its own."""
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "cellsparse", "search", "run", *arguments, "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "CELLSPARSE_ADDRESS": orchestrator.address},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


def runs_of(orchestrator, name):
    """All runs of a search."""
    request = orchestrator_pb2.ListRunsRequest(page=common_pb2.PageRequest(page_size=1000))
    found = orchestrator.runs.ListRuns(request, timeout=PATIENCE).runs
    return [run for run in found if run.name.startswith(f"{name} ")]


def test_a_killed_driver_goes_on_and_does_nothing_twice(orchestrator, home, drive):
    begin = [orchestrator.upload().id, "--backend", "unet", "--name", "bright", "--over", OVER, *SETTINGS]
    begin += ["--trials", str(TRIALS), "--at-once", "2"]
    driver = drive(*begin)
    until(lambda: any(run.state == common_pb2.RUN_STATE_SUCCEEDED for run in runs_of(orchestrator, "bright")))
    until(lambda: any(run.state == common_pb2.RUN_STATE_RUNNING for run in runs_of(orchestrator, "bright")))
    driver.kill()
    driver.communicate(timeout=PATIENCE)
    left = runs_of(orchestrator, "bright")
    assert len(left) < TRIALS

    driver = drive("--resume", "--name", "bright", "--at-once", "2")
    out, err = driver.communicate(timeout=LONG_PATIENCE)
    assert driver.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    document = lines[-1]
    trials = document["trials"]
    runs = {run.id: run for run in runs_of(orchestrator, "bright")}
    # One run for every trial: those of the first driver are the second's, and none was made twice.
    assert sorted(trial["run_id"] for trial in trials) == sorted(runs)
    assert len(trials) == TRIALS
    assert {run.id for run in left} <= set(runs)
    assert sorted(run.name for run in runs.values()) == [f"bright {number}" for number in range(TRIALS)]
    ended_first = {trial["run_id"] for trial in trials} - {line.get("run_id") for line in lines[:-1]}
    assert ended_first <= {run.id for run in left}
    for trial in trials:
        run = runs[trial["run_id"]]
        assert run.settings.upper_percentile == trial["settings"]["upper_percentile"]
        if trial["state"] == "pruned":
            assert run.state == common_pb2.RUN_STATE_CANCELLED
        else:
            assert (trial["state"], run.state) == ("complete", common_pb2.RUN_STATE_SUCCEEDED)
    best = document["best"]
    assert best["value"] == max(trial["value"] for trial in trials if trial["value"] is not None) == 1.0
    assert document["complete"]
    rows = list(csv.DictReader((home / "searches" / "bright" / "trials.csv").open()))
    assert [int(row["number"]) for row in rows] == list(range(TRIALS))
    assert [row["run_id"] for row in rows] == [trial["run_id"] for trial in trials]


def test_failing_runs_do_not_sink_a_search(orchestrator, home):
    plan = search.make_plan(
        "rates",
        orchestrator.upload().id,
        "unet",
        over={"learning_rate": [0.1, 0.7]},  # 0.7 runs out of memory
        settings={"steps": 12},
        trials=4,
        pruner="none",
        max_attempts=1,
    )
    with cellsparse.Client(orchestrator.address) as client:
        document = search.run(client, plan).document
        best = client.model(document["best"]["model_id"])
    failed = [trial for trial in document["trials"] if trial["state"] == "failed"]
    good = [trial for trial in document["trials"] if trial["state"] == "complete"]
    assert len(failed) + len(good) == 4
    assert {trial["settings"]["learning_rate"] for trial in failed} == {0.7}
    assert {trial["settings"]["learning_rate"] for trial in good} == {0.1}
    assert {trial["run_id"] for trial in good} == {best.id}
    assert best.validation["score"] == document["best"]["value"]
    runs = {run.id: run for run in runs_of(orchestrator, "rates")}
    assert {runs[trial["run_id"]].reason for trial in failed} == {common_pb2.FAILURE_REASON_OUT_OF_MEMORY}
    assert all(runs[trial["run_id"]].message in trial["message"] for trial in failed)
    assert len(runs) == len(failed) + 1  # what an earlier trial has trained is not trained again
