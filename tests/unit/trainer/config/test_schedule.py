import dataclasses

import pytest

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.presets import make_plan
from cellsparse_trainer.config.schedule import learning_rate

DEFAULTS = {
    "steps": 100,
    "batch_size": 1,
    "crop_size": 32,
    "learning_rate": 0.5,
    "weight_decay": 0.0,
    "lower_percentile": 0.0,
    "upper_percentile": 100.0,
    "validate_every": 10,
    "checkpoint_every": 10,
    "schedule": "constant",
    "warmup_steps": 0,
    "last_rate": 0.0,
}


def plan(**values):
    return make_plan(trainer_pb2.TrainingSettings(), DEFAULTS | values)


def rates(**values):
    return [learning_rate(plan(**values), step) for step in range(100)]


def test_constant_rises_and_stays():
    assert rates(schedule="constant", warmup_steps=4) == pytest.approx([0.1, 0.2, 0.3, 0.4, *[0.5] * 96])


def test_cosine_falls_to_the_last_rate():
    found = rates(schedule="cosine", warmup_steps=4, last_rate=0.2)
    assert max(found) == found[4] == 0.5
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[-1] == pytest.approx(0.1, rel=0.01)


def test_ten_stairs():
    found = rates(schedule="stairs", warmup_steps=50)
    assert found[:50:5] == pytest.approx([0.5 * n / 9 for n in range(10)])
    assert found[4] == 0
    assert set(found[50:]) == {0.5}
    assert set(rates(schedule="stairs", warmup_steps=0)) == {0.5}


def test_a_short_run_warms_up_for_a_quarter_of_it():
    short = {**DEFAULTS, "schedule": "cosine", "warmup_steps": 20, "last_rate": 0.0}
    for steps, warmup in ((1000, 20), (8, 2), (1, 0)):
        assert make_plan(trainer_pb2.TrainingSettings(steps=steps), short).warmup_steps == warmup
    assert make_plan(trainer_pb2.TrainingSettings(steps=8, warmup_steps=20), short).warmup_steps == 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schedule", "linear"),
        ("warmup_steps", -1),
        ("last_rate", 1.5),
        ("num_workers", -1),
        ("patience", -1),
        ("checkpoint_seconds", 0.0),
        ("checkpoint_seconds", float("nan")),
        ("device", "tpu"),
        ("min_nodes", 0),
        ("min_nodes", 2),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        dataclasses.replace(plan(), **{name: value})
