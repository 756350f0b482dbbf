"""Searches through API and command line, against the fake orchestrator."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from support.limits import PATIENCE

import cellsparse
from cellsparse import search
from cellsparse.cli.app import run
from cellsparse.cli.exits import Exit
from cellsparse.connection import Connection
from cellsparse.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from cellsparse.search import driver
from cellsparse.search.trial import TrialWatcher
from cellsparse.search.trial_store import TrialStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2

SUCCEEDED, FAILED, CANCELLED = (
    common_pb2.RUN_STATE_SUCCEEDED,
    common_pb2.RUN_STATE_FAILED,
    common_pb2.RUN_STATE_CANCELLED,
)
OVER = {"learning_rate": "1e-4..1e-2:log"}
COMMAND = ["search", "run", "nuclei", "--backend", "unet", "--over", "learning_rate=1e-4..1e-2:log", "--trials", "2"]


@pytest.fixture
def known(fake, make):
    """A run that validates twice and succeeds, whatever is asked for."""
    fake.state.datasets = [dataset_pb2.Dataset(id="ds-1", name="nuclei")]
    fake.state.runs = [make.run("run-1", state=SUCCEEDED)]
    fake.state.runs[0].progress.step = 20
    fake.state.runs[0].started_at.FromSeconds(100)
    fake.state.runs[0].ended_at.FromSeconds(165)
    fake.state.models = [orchestrator_pb2.Model(id="run-1", validation={"score": 0.75, "f1": 0.8})]
    fake.state.events = [make.event(1, step=10), make.event(2, step=20), make.event(3, SUCCEEDED, step=20)]
    for event, score in zip(fake.state.events, (0.5, 0.7, 0.75), strict=True):
        event.training.validation["score"] = score
        event.training.validation["f1"] = score + 0.05
    return fake


def plan(**fields):
    return search.make_plan("rates", "ds-1", "unet", **{"over": OVER, "trials": 2, **fields})


def follow(path, number=None, made=None):
    """Bring a trial to its end and return it."""
    made = made or plan()
    trials = TrialStore(made, path)
    with cellsparse.Client() as client:
        number = trials.ask() if number is None else number
        TrialWatcher(connection=client.connection, plan=made, trials=trials, patience=0.1).follow(number)
    return trials.row(number)


def test_a_trial_is_worth_its_models_score(known, tmp_path):
    row = follow(tmp_path / "trials.db")
    assert (row.state, row.value, row.run_id, row.steps, row.training_seconds) == ("complete", 0.75, "run-1", 20, 65)
    assert row.validations == {10: 0.5, 20: 0.7}
    assert follow(tmp_path / "other.db", made=plan(metric="f1")).value == 0.8


def test_runs_that_fail_or_are_cancelled_by_others_are_failed_trials(known, tmp_path):
    known.state.runs[0].state, known.state.runs[0].message = FAILED, "no memory"
    assert follow(tmp_path / "a.db").message == "run failed: no memory"
    known.state.runs[0].state, known.state.runs[0].message = CANCELLED, ""
    row = follow(tmp_path / "b.db")
    assert (row.state, row.message) == ("failed", "run cancelled")
    known.state.runs[0].state = SUCCEEDED
    known.state.models[0].validation.clear()
    assert follow(tmp_path / "c.db").message == "the model has no score"
    assert known.state.cancelled == []


def test_settings_that_the_orchestrator_refuses_are_a_failed_trial(known, tmp_path, monkeypatch):
    def refuse(*_):
        raise InvalidArgument("the network is too deep.", "settings")

    monkeypatch.setattr("cellsparse.connection.Connection.call", refuse)
    row = follow(tmp_path / "trials.db")
    assert (row.state, row.message) == ("failed", "the network is too deep.")


def test_a_trial_waits_for_the_quota_of_its_project(known, tmp_path, monkeypatch):
    refusals = [ResourceExhausted("The quota of project pr-1 is 1 runs at once.")] * 3
    told, call = [], Connection.call

    def refuse_first(self, name, *more, **options):
        if name == "CreateRun" and refusals:
            raise refusals.pop()
        return call(self, name, *more, **options)

    monkeypatch.setattr(Connection, "call", refuse_first)
    trials = TrialStore(plan(), tmp_path / "trials.db")
    with cellsparse.Client() as client:
        watcher = TrialWatcher(
            connection=client.connection, plan=plan(), trials=trials, on_wait=told.append, quota_pause=0.01
        )
        watcher.follow(trials.ask())
        assert trials.row(0).state == "complete"
        assert len(told) == 1
        refusals.append(told[0])
        with pytest.raises(ResourceExhausted, match="1 runs at once"):
            replace(watcher, quota_patience=0.0).follow(trials.ask())
    assert trials.row(1).state == "running"  # it can be resumed


def test_a_poor_trial_is_cancelled_once_and_pruned(known, tmp_path):
    path = tmp_path / "trials.db"
    trials = TrialStore(plan(), path)
    for _ in range(5):
        number = trials.ask()
        trials.validated(number, 10, 0.9)
        trials.complete(number, 0.9)
    known.state.runs[0].state = CANCELLED
    row = follow(path)
    assert (row.state, row.value, row.message) == ("pruned", None, "pruned at step 10")
    assert known.state.cancelled == ["run-1"]
    # A driver killed between the decision and the call cancels when it goes on; a run that was faster has its model.
    number = trials.ask()
    assert trials.validated(number, 10, 0.1)
    known.state.runs[0].state = SUCCEEDED
    assert follow(path, number).state == "complete"
    assert known.state.cancelled == ["run-1", "run-1", "run-1"]


def test_an_outage_ends_the_driver_and_not_the_trial(known, tmp_path, monkeypatch):
    path = tmp_path / "trials.db"
    monkeypatch.setattr("cellsparse.reconnect.FIRST_PAUSE_SECONDS", 0.01)
    known.stop()
    with pytest.raises(Unavailable):
        follow(path)
    assert TrialStore(plan(), path).unfinished() == [0]


def test_a_search_has_its_trials_and_goes_on_with_more(known):
    told = []
    with cellsparse.Client() as client:
        listener = search.Listener(on_trial=lambda row: told.append((row.number, row.state)))
        found = search.run(client, plan(), at_once=2, listener=listener)
        assert found.complete
        assert sorted(told) == [(0, "complete"), (0, "running"), (1, "complete"), (1, "running")]
        assert found.document["best"]["model_id"] == "run-1"
        assert search.run(client, plan()).document == found.document
        assert len(search.run(client, plan(trials=3)).document["trials"]) == 3
    assert len({request.request_id for request in known.state.created}) == 3 == len(known.state.created)
    assert search.report("rates").document["counts"]["complete"] == 3
    assert (driver.folder_of("rates") / "report.json").exists()


def test_what_no_trial_can_mend_ends_the_search(known, monkeypatch):
    def missing(*_):
        raise NotFound("dataset 'ds-1' does not exist.")

    monkeypatch.setattr("cellsparse.connection.Connection.call", missing)
    with cellsparse.Client() as client, pytest.raises(NotFound):
        search.run(client, plan())
    with cellsparse.Client() as client, pytest.raises(InvalidArgument, match="at_once is 0"):
        search.run(client, plan(), at_once=0)
    assert search.report("rates").document["counts"] == {"complete": 0, "pruned": 0, "failed": 0, "running": 1}


def test_commands_print_text_or_json(known, capsys):
    assert run(COMMAND) == 0
    printed = capsys.readouterr()
    assert "score 0.750 after 1:05, model run-1" in printed.out
    assert "best model run-1: score 0.750 with learning_rate=" in printed.out
    assert known.state.created[0].settings.preset == 1
    assert run([*COMMAND[:-1], "3", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines] == ["trial", "trial", "search"]
    assert len(lines[-1]["trials"]) == 3
    assert run(["search", "run", "--resume", "--name", "nuclei-unet", "--trials", "4"]) == 0
    for command in (["search", "list"], ["search", "report", "nuclei-unet"]):
        capsys.readouterr()
        assert run(command) == 0
        assert "nuclei-unet" in capsys.readouterr().out or command[1] == "report"
        assert run([*command, "--json"]) == 0
        json.loads(capsys.readouterr().out)


def test_a_report_goes_where_it_is_wanted(known, tmp_path, capsys):
    assert run([*COMMAND, "--name", "mine"]) == 0
    assert run(["search", "report", "mine", "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "trials.csv"}
    assert "best model run-1" in capsys.readouterr().out


def test_no_model_at_all_is_an_exit_code(known, capsys):
    known.state.runs[0].state = FAILED
    assert run(COMMAND) == Exit.RUN_FAILED
    assert "No trial of search nuclei-unet has a model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said", "code"),
    [
        (["--over", "rays=1,2"], "unet has no setting 'rays'", Exit.USAGE),
        (["--over", "batch_size=2,400"], "batch_size is '400'; allowed: a whole number, 1 to 256", Exit.USAGE),
        (["--metric", "speed"], "metric is 'speed'; allowed: score", Exit.USAGE),
        (["--set", "learning_rate=1"], "learning_rate is given twice", Exit.USAGE),
        (["--at-once", "65"], "--at-once is 65; allowed: 1 to 64", Exit.USAGE),
        (["--resume"], "--resume continues a search as it was started", Exit.USAGE),
        (["--start", "other"], "No model has the id or name 'other'", Exit.NOT_FOUND),
    ],
)
def test_what_is_wrong_is_said_before_any_run_starts(known, capsys, changed, said, code):
    assert run([*COMMAND, *changed]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert known.state.created == []


def test_a_search_needs_dataset_and_name(known, capsys):
    assert run(["search", "run", "--over", "steps=1,2"]) == Exit.USAGE
    assert run(["search", "run", "--resume", "--name", "other"]) == Exit.NOT_FOUND
    assert run(["search", "report", "other"]) == Exit.NOT_FOUND
    assert "there are: none" in capsys.readouterr().err


def test_without_optuna_a_sentence_says_what_to_install(known, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(COMMAND) == Exit.USAGE
    assert "pip install 'cellsparse[search]'" in capsys.readouterr().err
    assert known.state.created == []
    assert run(["runs", "list"]) == 0


def test_a_signal_leaves_the_runs_and_the_next_start_finds_them(known):
    known.state.endless = True
    process = subprocess.Popen(
        [sys.executable, "-m", "cellsparse", *COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        start_new_session=True,
    )
    try:
        assert "begins" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)  # as Ctrl-C does
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert process.returncode == Exit.DETACHED
    assert "the runs of search nuclei-unet go on" in err
    assert "Traceback" not in out + err
    assert known.state.cancelled == []
    known.state.endless = False
    begun = len(known.state.created)
    assert run(COMMAND) == 0
    assert len({request.request_id for request in known.state.created}) == 2
    assert len(known.state.created) == begun + 2
