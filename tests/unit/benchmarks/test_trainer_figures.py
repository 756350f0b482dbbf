"""The pure part of `make bench-trainers`."""

import pytest
from trainer_figures import allowance, growth, race_figures, seconds_to_goal, step_figures
from trainer_processes import environment


def curve(*points, steps=100):
    return [
        {"step": step, "steps": steps, "seconds": seconds, "f1": f1, "f1_all": f1_all}
        for step, seconds, f1, f1_all in points
    ]


FAST = curve((10, 5.0, 0.2, None), (20, 10.0, 0.72, 0.68), (30, 15.0, 0.74, 0.71), (100, 50.0, 0.8, 0.8))


def test_ratio_is_of_medians_over_all_steps():
    ours = [{"seconds": [1.0, 9.0], "cpu_seconds": 2.0}, {"seconds": [1.0], "cpu_seconds": 2.0}]
    stock = [{"seconds": [2.0, 2.0], "cpu_seconds": 8.0}]
    assert step_figures(ours, stock) == {"ratio": 0.5, "cpu_ratio": 0.25, "seconds": 1.0, "stock_seconds": 2.0}


def test_goal_counts_only_on_all_images():
    assert seconds_to_goal(FAST) == 15.0
    assert seconds_to_goal(FAST[:2]) is None


def test_paper_may_train_ten_times_as_long_as_fast_needed():
    assert allowance(15.0, 1800.0, full=False) == 150.0
    assert allowance(500.0, 1800.0, full=False) == 1800.0
    assert allowance(15.0, 1800.0, full=True) == 1800.0
    assert allowance(None, 1800.0, full=False) == 1800.0


def test_paper_that_got_there():
    found = race_figures(FAST, curve((40, 60.0, 0.71, 0.7)), 1800.0)
    assert found == {
        "fast_to_paper_time_ratio": 0.25,
        "fast_to_paper_is_upper_bound": False,
        "seconds_to_f1_0.70": 15.0,
        "paper_seconds_to_f1_0.70": 60.0,
        "paper_stopped_at_seconds": None,
    }


def test_paper_stopped_early_bounds_the_ratio():
    found = race_figures(FAST, curve((40, 150.0, 0.1, None)), 1800.0)
    assert (found["fast_to_paper_time_ratio"], found["fast_to_paper_is_upper_bound"]) == (0.1, True)
    assert found["paper_stopped_at_seconds"] == 150.0


@pytest.mark.parametrize("paper", [curve((40, 1805.0, 0.1, None)), curve((100, 900.0, 0.3, 0.3))])
def test_paper_that_never_gets_there_counts_as_the_most(paper):
    found = race_figures(FAST, paper, 1800.0)
    assert found["fast_to_paper_time_ratio"] == pytest.approx(15.0 / 1800.0)
    assert not found["fast_to_paper_is_upper_bound"]


def test_times_not_reached_are_none():
    found = race_figures(FAST[:2], curve((40, 60.0, 0.71, 0.7)), 1800.0)
    assert found["fast_to_paper_time_ratio"] is None
    assert found["seconds_to_f1_0.70"] is None
    assert race_figures(FAST, [], 1800.0)["fast_to_paper_time_ratio"] is None


def test_growth_is_per_further_image():
    assert growth({"images": 32, "peak_memory_mib": 500.0}, {"images": 320, "peak_memory_mib": 644.0}) == 0.5


def test_both_sides_get_the_same_threads(monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    ours, stock = environment(2, "unet", ours=True), environment(2, "unet", ours=False)
    assert ours["OMP_NUM_THREADS"] == stock["OMP_NUM_THREADS"] == "2"
    assert ours["TF_NUM_INTRAOP_THREADS"] == stock["TF_NUM_INTRAOP_THREADS"] == "2"
    assert "MALLOC_TRIM_THRESHOLD_" in ours
    assert "MALLOC_TRIM_THRESHOLD_" not in stock
