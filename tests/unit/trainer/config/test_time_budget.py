"""Steps that fit into the minutes that were asked for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cellsparse_fake.config import resolve

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.time_budget import (
    Measured,
    finishing_seconds,
    fit_to_time,
    step_seconds_allowed,
)

PLAN = replace(
    resolve(trainer_pb2.TrainingSettings(), 1).plan,
    steps=500,
    batch_size=8,
    validate_every=100,
    warmup_steps=20,
    minutes=5.0,
)
FAST = Measured(before=10.0, setting_up=5.0, first_step=2.0, step=0.2, validation=1.0, finishing=10.0)
SECONDS = st.floats(0, 1000)
MEASURED = st.builds(
    Measured,
    before=SECONDS,
    setting_up=SECONDS,
    first_step=SECONDS,
    step=st.floats(1e-5, 100),
    validation=SECONDS,
    finishing=SECONDS,
)


def expected_seconds(plan, found):
    """When a training with this plan ends, if the machine stays as it was measured."""
    validations = -(-plan.steps // plan.validate_every)
    fixed = found.before + found.setting_up + found.first_step + finishing_seconds(PLAN, found)
    return fixed + plan.steps * found.step + validations * found.validation


def test_the_time_is_used_and_not_exceeded():
    plan = fit_to_time(PLAN, FAST)
    assert 0.9 * 300 < expected_seconds(plan, FAST) <= 300
    assert plan.batch_size == 8
    assert f"{plan.steps} steps fit into 5 minutes: 15.0 s pass before the first one" in plan.budget
    assert "a step takes 0.200 s here" in plan.budget
    assert replace(plan, steps=500, budget="") == PLAN


def test_half_the_speed_means_half_the_steps():
    slow = replace(FAST, step=0.4, validation=2.0)
    assert fit_to_time(PLAN, slow).steps == pytest.approx(fit_to_time(PLAN, FAST).steps / 2, rel=0.01)


def test_where_few_steps_fit_batches_are_smaller_and_where_many_do_larger():
    slow = fit_to_time(PLAN, replace(FAST, step=6.0))
    assert slow.batch_size == 2
    assert "of 2 crops instead of 8" in slow.budget
    assert slow.steps > 300 / 6
    slower = fit_to_time(PLAN, replace(FAST, step=30.0))
    assert slower.warmup_steps == slower.steps // 4 < 20
    quick = fit_to_time(PLAN, replace(FAST, step=0.01))
    assert quick.batch_size == 32
    assert fit_to_time(PLAN, replace(FAST, step=6.0), {"batch_size"}).batch_size == 8


def test_a_long_training_is_validated_some_twenty_times():
    plan = fit_to_time(replace(PLAN, minutes=60.0), FAST)
    assert 15 <= plan.steps / plan.validate_every <= 20
    assert fit_to_time(replace(PLAN, minutes=60.0), FAST, {"validate_every"}).validate_every == 100


def test_thresholds_keep_a_bounded_share():
    assert finishing_seconds(PLAN, FAST) == 10
    assert finishing_seconds(PLAN, replace(FAST, finishing=1e6)) == pytest.approx(45)
    assert finishing_seconds(PLAN, replace(FAST, finishing=0)) == pytest.approx(6)


def test_no_step_begins_long_after_the_time():
    assert step_seconds_allowed(PLAN, 10.0) == pytest.approx(305)
    assert step_seconds_allowed(PLAN, None) == pytest.approx(270)
    assert step_seconds_allowed(replace(PLAN, minutes=None), 10.0) is None


@given(MEASURED, st.floats(0.001, 10_080))
def test_every_machine_gets_a_plan_that_can_be(found, minutes):
    plan = fit_to_time(replace(PLAN, minutes=minutes), found)
    assert plan.steps >= 1
    assert 2 <= plan.batch_size <= 32
    assert 0 <= plan.warmup_steps <= plan.steps


@given(MEASURED)
def test_more_minutes_never_mean_fewer_crops(found):
    crops = [
        (plan := fit_to_time(replace(PLAN, minutes=minutes), found, {"batch_size"})).steps * plan.batch_size
        for minutes in (1.0, 2.0, 4.0, 8.0)
    ]
    assert crops == sorted(crops)


def test_minutes_are_above_0():
    with pytest.raises(ValueError, match="minutes is 0; allowed: above 0"):
        replace(PLAN, minutes=0)
