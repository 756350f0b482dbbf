"""Presets, given settings, ranges and JSON."""

import subprocess
import sys
from dataclasses import replace

import pytest

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.schedule import learning_rate
from cellsparse_unet.config import Config, resolve


def settings(**values):
    return trainer_pb2.TrainingSettings(**({"unet": trainer_pb2.UnetSettings()} | values))


def test_fast_is_the_default():
    fast = settings(preset=trainer_pb2.PRESET_FAST)
    assert resolve(settings(), 5) == resolve(fast, 5)
    assert resolve(fast, 5).plan.crop_size < 224


def test_paper_follows_the_protocol():
    config = resolve(settings(preset=trainer_pb2.PRESET_PAPER), 33)
    plan = config.plan
    assert (plan.steps, plan.batch_size, plan.crop_size, plan.learning_rate) == (500, 8, 224, 1e-3)
    assert (plan.lower_percentile, plan.upper_percentile, plan.weight_decay) == (0, 100, 0)
    assert (config.base_channels, config.centre_scale, config.centre_threshold) == (16, 0.5, 0.8)
    assert config.class_weights == (1, 10, 10)
    assert config.likely_background == config.centre_smoothing == 0
    assert config.loss_shares == (1 / 7, 5 / 7, 1 / 7)
    assert (config.scale_range, config.rotation, config.contrast, config.flip) == (0.2, 45, 0.5, False)
    assert config.instance_method == "ellipse"
    assert (config.target_shape, config.outline_rim, config.average_decay) == ("ellipse", 0, 0)
    assert (config.border_weight, config.split_depth, config.test_flips) == (1, 0, False)
    assert learning_rate(plan, 0) == learning_rate(plan, 499) == 1e-3


@pytest.mark.parametrize("preset", [trainer_pb2.PRESET_FAST, trainer_pb2.PRESET_PAPER])
def test_given_settings_win(preset):
    config = resolve(
        trainer_pb2.TrainingSettings(
            preset=preset,
            seed=2**64 - 1,
            device=trainer_pb2.DEVICE_CPU,
            steps=7,
            batch_size=3,
            crop_size=64,
            learning_rate=0.5,
            weight_decay=0.25,
            lower_percentile=2,
            upper_percentile=98,
            channel=1,
            validate_every_steps=4,
            checkpoint_every_steps=5,
            unet=trainer_pb2.UnetSettings(
                base_channels=8,
                centre_scale=0.4,
                centre_threshold=0.6,
                instance_method=trainer_pb2.INSTANCE_METHOD_ELLIPSE,
                target_shape=trainer_pb2.TARGET_SHAPE_OUTLINE,
                outline_rim=3.0,
                average_decay=0.5,
                test_flips=True,
                border_weight=2.0,
                split_depth=1.5,
            ),
        ),
        100,
    )
    plan = config.plan
    assert (plan.steps, plan.batch_size, plan.crop_size, plan.channel) == (7, 3, 64, 1)
    assert (plan.learning_rate, plan.weight_decay, plan.seed, plan.device) == (0.5, 0.25, 2**64 - 1, "cpu")
    assert (plan.lower_percentile, plan.upper_percentile) == (2, 98)
    assert (plan.validate_every, plan.checkpoint_every) == (4, 5)
    assert (config.base_channels, config.centre_scale, config.centre_threshold) == (8, 0.4, 0.6)
    assert (config.instance_method, config.target_shape) == ("ellipse", "outline")
    assert (config.outline_rim, config.average_decay, config.test_flips) == (3.0, 0.5, True)
    assert (config.border_weight, config.split_depth) == (2.0, 1.5)


def test_configurations_of_older_models_keep_their_meaning():
    old = resolve(settings(preset=trainer_pb2.PRESET_PAPER), 3).to_dict()
    for name in ("target_shape", "outline_rim", "average_decay", "test_flips", "border_weight", "split_depth"):
        del old[name]
    assert Config.from_dict(old) == resolve(settings(preset=trainer_pb2.PRESET_PAPER), 3)


def test_zero_is_a_value():
    config = resolve(settings(preset=trainer_pb2.PRESET_FAST, weight_decay=0, channel=0), 1)
    assert (config.plan.weight_decay, config.plan.channel) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"base_channels": 3},
        {"centre_scale": 0.95},
        {"centre_threshold": 0.0},
        {"instance_method": "magic"},
        {"class_weights": (1.0, 0.0, 1.0)},
        {"loss_shares": (0.0, 0.0, 0.0)},
        {"scale_range": 1.0},
        {"likely_background": 2.0},
        {"centre_smoothing": -1.0},
        {"rotation": 181.0},
        {"contrast": -0.1},
        {"target_shape": "box"},
        {"outline_rim": 11.0},
        {"average_decay": 1.0},
        {"border_weight": 0.5},
        {"split_depth": 11.0},
    ],
)
def test_out_of_range_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(resolve(settings(), 1), **change)


def test_learning_rate_rises_and_falls():
    config = resolve(settings(steps=100), 1)
    rates = [learning_rate(config.plan, step) for step in range(100)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(config.plan.learning_rate)
    assert min(rates) > 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_json_round_trip():
    config = resolve(settings(channel=2, seed=2**64 - 1), 3)
    assert Config.from_json(config.to_json()) == config
    for text in ("{}", "[]", "no", '{"plan": {}}'):
        with pytest.raises(ValueError):  # noqa: PT011 - several sentences, one class
            Config.from_json(text)


def test_config_and_main_load_no_framework():
    code = "import sys, cellsparse_unet.config, cellsparse_unet.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
