"""What is tried next, what is pruned, and what a driver that was killed left behind."""

import pytest

from cellsparse.errors import AlreadyExists, FailedPrecondition, NotFound, StorageError
from cellsparse.search import load_plan, make_plan, names, report
from cellsparse.search.folder import TRIALS, begun, folder_of
from cellsparse.search.report import make_report
from cellsparse.search.trial_store import TrialStore

OVER = {"learning_rate": "1e-4..1e-2:log", "batch_size": "2,4,8", "steps": "10..500"}


def plan(**fields):
    return make_plan("rates", "ds-1", "unet", **{"over": OVER, **fields})


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path))
    return tmp_path / "trials.db"


def goodness(settings):
    return 1 - abs(settings["learning_rate"] - 1e-3) * 50 - settings["batch_size"] / 100


def test_what_is_chosen_does_not_depend_on_how_often_the_driver_was_started(path, tmp_path):
    whole = TrialStore(plan(), path)
    for _ in range(11):  # the sampler learns from the tenth on
        number = whole.ask()
        whole.complete(number, goodness(whole.settings(number)))
        broken = TrialStore(plan(), tmp_path / "other.db")
        number = broken.ask()
        broken.complete(number, goodness(broken.settings(number)))
    assert [row.settings for row in whole.rows()] == [row.settings for row in broken.rows()]
    assert len({row.settings["learning_rate"] for row in whole.rows()}) == 11
    assert all(
        1e-4 <= row.settings["learning_rate"] <= 1e-2 and 10 <= row.settings["steps"] <= 500 for row in whole.rows()
    )
    another = TrialStore(plan(seed=1), tmp_path / "seed.db")
    assert another.settings(another.ask()) != whole.row(0).settings


def test_trials_under_way_are_found_again_even_half_chosen(path):
    trials = TrialStore(plan(), path)
    trials.complete(trials.ask(), 0.5)
    chosen = trials.settings(trials.ask())
    trials._study.ask()  # and killed before anything was chosen
    again = TrialStore(plan(), path)
    assert again.unfinished() == [1, 2]
    assert again.settings(1) == chosen
    assert set(again.settings(2)) == set(OVER)
    assert again.settings(2) == TrialStore(plan(), path).row(2).settings
    assert again.begun() == 3


def five_good(trials):
    for _ in range(5):  # the median pruner wants as many before it prunes
        number = trials.ask()
        for step, value in ((10, 0.5), (20, 0.7)):
            assert not trials.validated(number, step, value)
        trials.complete(number, 0.7)
    return trials.ask()


def test_a_trial_below_the_median_is_pruned_and_stays_so(path):
    trials = TrialStore(plan(), path)
    number = five_good(trials)
    assert not trials.validated(number, 10, 0.6)
    assert not trials.is_pruned(number)
    poor = trials.ask()
    assert trials.validated(poor, 10, 0.1)
    again = TrialStore(plan(), path)
    assert again.is_pruned(poor)
    assert again.validated(poor, 20, 0.9)
    again.prune(poor)
    row = again.row(poor)
    assert (row.state, row.value, row.message, row.validations) == ("pruned", None, "pruned at step 10", {10: 0.1})
    assert again.unfinished() == [number]


def test_a_step_counts_once(path):
    trials = TrialStore(plan(), path)
    number = five_good(trials)
    assert not trials.validated(number, 10, 0.6)
    assert not trials.validated(number, 20, 0.8)
    assert not trials.validated(number, 10, 0.0)  # what the run's next attempt finds after it has gone back
    assert not trials.validated(number, 20, 0.0)
    assert trials.row(number).validations == {10: 0.6, 20: 0.8}


def test_a_decision_lost_with_the_driver_is_taken_again(path, monkeypatch):
    trials = TrialStore(plan(), path)
    number = five_good(trials)
    trials._trial(number).report(0.1, 10)  # and killed before it was decided
    assert TrialStore(plan(), path).validated(number, 10, 0.1)


@pytest.mark.parametrize(("pruner", "prunes"), [("none", False), ("median", True), ("hyperband", None)])
def test_pruners_by_name(path, pruner, prunes):
    trials = TrialStore(plan(pruner=pruner), path)
    decided = trials.validated(five_good(trials), 10, 0.0)
    assert decided is prunes or prunes is None


def test_settings_that_were_tried_are_not_trained_again(path):
    trials = TrialStore(plan(over={"flip": "true,false"}), path)
    trained = []
    for _ in range(8):
        number = trials.ask()
        if not trials.repeats(number):
            trained.append(number)
            trials.note_run(number, f"run-{number}")
            trials.complete(number, 0.25 + number / 10)
    assert len(trained) == 2
    rows = trials.rows()
    assert [row.state for row in rows] == ["complete"] * 8
    for row in rows:
        twin = next(rows[number] for number in trained if rows[number].settings == row.settings)
        assert (row.value, row.run_id) == (twin.value, twin.run_id)
        assert row.number in trained or row.message == f"the same as trial {twin.number}"


def test_a_report_names_the_best(path):
    made = plan(trials=3)
    trials = TrialStore(made, path)
    trials.note_run(trials.ask(), "run-a")
    trials.note_end(0, 40, 2.5)
    trials.complete(0, 0.5)
    trials.fail(trials.ask(), "no memory, alas")
    found = make_report(made, trials.rows())
    assert not found.complete
    assert found.document["counts"] == {"complete": 1, "pruned": 0, "failed": 1, "running": 0}
    assert found.document["best"]["model_id"] == "run-a"
    assert found.document["best"]["settings"] == trials.row(0).settings
    lines = found.trials_csv.splitlines()
    assert lines[0] == "number,state,score,learning_rate,batch_size,steps,trained_steps,training_seconds,run_id,message"
    assert lines[1].endswith(",40,2.500,run-a,")
    assert lines[2].startswith("1,failed,,")
    assert lines[2].endswith(',0,0.000,,"no memory, alas"')
    trials.fail(trials.ask(), "again")
    assert make_report(made, trials.rows()).complete
    assert make_report(made, trials.rows()[1:2]).document["best"] is None


def test_one_driver_at_a_time_and_one_plan_per_name(path):
    made = plan()
    with begun(made) as known:
        assert known == made == load_plan("rates")
        with pytest.raises(FailedPrecondition, match="Another process drives search rates"), begun(made):
            pass
    with begun(plan(trials=30)) as known:
        assert (known.trials, known.token) == (30, made.token)
    with (
        pytest.raises(AlreadyExists, match="with other values of over, seed"),
        begun(plan(over={"steps": "1,2"}, seed=1)),
    ):
        pass
    assert names() == ["rates"]
    assert load_plan("rates").trials == 30


def test_a_search_that_is_not_there_or_damaged_is_said(path):
    with pytest.raises(NotFound, match="No search is called 'rates'; there are: none"):
        report("rates")
    with pytest.raises(NotFound):
        load_plan("../rates")
    with begun(plan()):
        pass
    assert report("rates").document["trials"] == []
    assert (folder_of("rates") / TRIALS).exists()
    (folder_of("rates") / "plan.json").write_text("{")
    with pytest.raises(StorageError, match=r"plan\.json cannot be read"):
        load_plan("rates")
