"""What a search may choose from, and which plans there are."""

import numpy as np
import pytest

from cellsparse.errors import InvalidArgument
from cellsparse.search import make_plan
from cellsparse.search.plan import METRICS, from_json
from cellsparse.search.space import Choices, Range, parse_axis, parse_pairs
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.training.scoring import validation_scores


def plan(**fields):
    return make_plan("rates", "ds-1", "unet", **{"over": {"learning_rate": "1e-5..1e-2:log"}, **fields})


def test_ranges_and_choices_come_from_text():
    pairs = ["learning_rate=1e-5..1e-2:log", "batch_size=2,4,8", "unet.base_channels=16..64", "crop_size=64..128"]
    assert parse_pairs("unet", pairs) == (
        Range(name="learning_rate", low=1e-5, high=1e-2, log=True, step=0),
        Choices(name="batch_size", values=(2, 4, 8)),
        Range(name="base_channels", low=16, high=64, log=False, step=1),
        Range(name="crop_size", low=64, high=128, log=False, step=16),
    )


def test_choices_keep_their_kind():
    assert parse_axis("unet", "flip", "true,false").values == (True, False)
    assert parse_axis("unet", "schedule", "COSINE, constant").values == ("cosine", "constant")
    assert parse_axis("unet", "class_weights", "1,10,10;1,1,1").values == ("1,10,10", "1,1,1")
    assert parse_axis("stardist", "grid", [2, 4]).values == (2, 4)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("learning_rate=0..1e-2", "learning_rate is '0'; allowed: above 0 to 1"),
        ("learning_rate=1e-5..2", "learning_rate is '2'; allowed: above 0 to 1"),
        ("learning_rate=1e-2..1e-5", "the first number must be below the second"),
        ("learning_rate=..1", "learning_rate is ''"),
        ("weight_decay=0..1:log", "with :log the first number must be above 0"),
        ("steps=1.5..10", "steps is '1.5'; allowed: a whole number, 1 to 10000000"),
        ("batch_size=2,400", "batch_size is '400'; allowed: a whole number, 1 to 256"),
        ("batch_size=2", "give two different values or more"),
        ("batch_size=2,2", "give two different values or more"),
        ("crop_size=64,100", "crop_size is '100'; allowed: a whole number, 32 to 2048, multiples of 16"),
        ("crop_size=64..128:log", "cannot be a multiple of 16"),
        ("preset=fast..paper", "takes no range; give values, of fast|paper"),
        ("preset=fast,slow", "preset is 'slow'; allowed: fast, paper"),
        ("rays=8,16", "unet has no setting 'rays'"),
        ("cellpose.min_size=1,2", "this search trains unet"),
        ("mask.min_size=1,2", "allowed before the dot: unet"),
        ("batch_size", "expected KEY=LOW..HIGH"),
        ("batch_size=", "expected KEY=LOW..HIGH"),
    ],
)
def test_what_cannot_be_searched_is_refused(pair, said):
    with pytest.raises(InvalidArgument) as caught:
        parse_pairs("unet", [pair])
    assert said in caught.value.message


def test_a_setting_of_few_values_takes_no_range():
    with pytest.raises(InvalidArgument, match=r"grid is '1\.\.4', but takes no range; give values, of 1, 2, 4"):
        parse_axis("stardist", "grid", "1..4")
    with pytest.raises(InvalidArgument, match="grid is '3'; allowed: a whole number, 1, 2, 4"):
        parse_axis("stardist", "grid", "2,3")


def test_a_plan_is_kept_as_text():
    over = {
        "learning_rate": "1e-5..1e-2:log",
        "steps": "10..20",
        "class_weights": ["1,2,3", "1,1,1"],
        "flip": "true,false",
    }
    made = plan(over=over, settings={"preset": "paper", "batch_size": 2}, max_attempts=1)
    assert from_json(made.to_json()) == made
    assert made.differences(plan(over=over)) == ["settings", "max_attempts"]
    assert made.differences(made.with_trials(3)) == []


def test_a_trial_asks_for_the_same_run_every_time():
    made = plan(settings={"steps": 7}, priority=2)
    request = made.request(3, {"learning_rate": 0.5})
    assert request == from_json(made.to_json()).request(3, {"learning_rate": 0.5})
    assert request.request_id.endswith("-3")
    assert (request.settings.steps, request.settings.learning_rate, request.priority) == (7, 0.5, 2)
    assert request.request_id != plan(settings={"steps": 7}).request(3, {}).request_id


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"over": {}}, "at least one setting"),
        ({"over": {"steps": "1,2", "unet.steps": "3,4"}}, "steps is given twice"),
        ({"settings": {"learning_rate": 0.1}}, "learning_rate is given twice"),
        ({"settings": {"steps": 0}}, "steps is '0'"),
        ({"trials": 0}, "trials is 0; allowed: 1 to 10,000"),
        ({"seed": -1}, "seed is -1"),
        ({"max_attempts": 11}, "max_attempts is 11"),
        ({"priority": 101}, "priority is 101"),
        ({"metric": "accuracy"}, "metric is 'accuracy'; allowed: score, f1"),
        ({"pruner": "mean"}, "pruner is 'mean'; allowed: none, median, hyperband"),
    ],
)
def test_bad_plans_are_refused(fields, said):
    with pytest.raises(InvalidArgument) as caught:
        plan(**fields)
    assert said in caught.value.message


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "a" * 65])
def test_a_name_is_a_folder(name):
    with pytest.raises(InvalidArgument, match="name is"):
        make_plan(name, "ds-1", "unet", over={"steps": "1,2"})


def test_the_metrics_are_those_that_trainers_report():
    label = np.zeros((8, 8), np.int32)
    label[2:5, 2:5] = 1
    sample = Sample(name="a", image=label.astype(np.float32), label=label)

    class Model:
        def predict(self, image):
            return label

    assert set(METRICS) == set(validation_scores(Model(), [sample]))
