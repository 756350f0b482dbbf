import dataclasses

import pytest

from cellsparse_cellpose.config import Config, resolve
from cellsparse_proto.v1 import trainer_pb2


def settings(**values: object) -> trainer_pb2.TrainingSettings:
    return trainer_pb2.TrainingSettings(cellpose=trainer_pb2.CellposeSettings(), **values)


def test_the_paper_preset_is_the_papers_protocol() -> None:
    config = resolve(settings(preset=trainer_pb2.PRESET_PAPER), items=20)
    plan = config.plan
    assert (plan.steps, plan.batch_size, plan.crop_size) == (300, 8, 224)  # 100 epochs of 3 batches
    assert (plan.learning_rate, plan.weight_decay, config.optimizer) == (1e-3, 1e-4, "sgd")
    assert (plan.schedule, plan.warmup_steps, config.sampling) == ("stairs", 30, "image")  # 10 epochs
    assert (config.mean_diameter, config.scale_range, config.rescale) == (30, 0.5, "image")
    assert config.background_share == 0
    assert (config.average_decay, config.size_passes, config.rim_width) == (0, 0, 0)
    assert (plan.lower_percentile, plan.upper_percentile) == (0, 100)


def test_fast_is_the_default_and_its_length_does_not_depend_on_the_data() -> None:
    assert resolve(settings(), items=3) == resolve(settings(preset=trainer_pb2.PRESET_FAST), items=500)


def test_given_settings_replace_the_presets() -> None:
    given = settings(
        steps=7, batch_size=3, channel=0, lower_percentile=0, device=trainer_pb2.DEVICE_CPU, seed=2**64 - 1
    )
    given.cellpose.flow_threshold = 0
    given.cellpose.min_size = 4
    config = resolve(given, items=1)
    assert (config.plan.steps, config.plan.batch_size, config.plan.channel) == (7, 3, 0)
    assert (config.plan.lower_percentile, config.plan.device, config.plan.seed) == (0, "cpu", 2**64 - 1)
    assert (config.flow_threshold, config.min_size) == (0, 4)


def test_a_config_survives_json() -> None:
    config = resolve(settings(), items=3)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize("text", ["{}", "[]", '{"plan": {}}', "no json"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Config.from_json(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean_diameter", 4.9),
        ("scale_range", 1.6),
        ("flow_threshold", -1),
        ("cellprob_threshold", 7),
        ("min_size", -1),
        ("average_decay", 1.0),
        ("size_passes", 6),
        ("rim_width", 10.1),
        ("optimizer", "adam"),
        ("sampling", "pixel"),
        ("rescale", "cell"),
        ("background_share", 1.0),
        ("channels", (256,)),
        ("channels", (32, 64)),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(resolve(settings(), items=3), **{name: value})
