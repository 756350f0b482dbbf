import dataclasses
import subprocess
import sys

import pytest
from support.limits import PATIENCE

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist.config import Config, resolve
from cellsparse_trainer.config.schedule import learning_rate


def settings(**fields):
    return trainer_pb2.TrainingSettings(**{"stardist": {}, **fields})


def test_paper_preset_is_the_paper():
    config = resolve(settings(preset="PRESET_PAPER"), 441)
    plan = config.plan
    assert (config.n_rays, config.grid, config.unet_depth, config.unet_filters, config.features) == (32, 2, 3, 32, 128)
    assert (plan.crop_size, plan.batch_size, plan.learning_rate, plan.steps) == (224, 8, 3e-4, 100 * (441 // 8 + 1))
    assert (plan.lower_percentile, plan.upper_percentile, plan.weight_decay) == (0, 100, 0)
    assert config.likely_background == 0
    assert {learning_rate(plan, step) for step in (0, 1, plan.steps - 1)} == {3e-4}


def test_fast_is_the_default_and_its_rate_rises_and_falls():
    config = resolve(settings(), 3)
    assert config == resolve(settings(preset="PRESET_FAST"), 300)
    rates = [learning_rate(config.plan, step) for step in range(config.plan.steps)]
    assert max(rates) == pytest.approx(config.plan.learning_rate)
    assert rates[0] < rates[config.plan.warmup_steps - 1]
    assert rates[-1] < 0.01 * config.plan.learning_rate
    assert min(rates) > 0


def test_given_settings_replace_the_presets():
    config = resolve(
        settings(
            preset="PRESET_PAPER",
            seed=2**63,
            device="DEVICE_CPU",
            steps=5,
            channel=0,
            validate_every_steps=3,
            weight_decay=0.5,
            stardist={"n_rays": 16, "grid": 4, "unet_depth": 1, "unet_filters": 8},
        ),
        10,
    )
    assert (config.n_rays, config.grid, config.unet_depth, config.unet_filters) == (16, 4, 1, 8)
    plan = config.plan
    assert (plan.seed, plan.device, plan.steps, plan.channel, plan.validate_every) == (2**63, "cpu", 5, 0, 3)
    assert plan.weight_decay == 0.5
    assert resolve(settings(), 1).plan.channel is None


def test_json_keeps_everything():
    config = resolve(settings(seed=5, channel=2), 4)
    assert Config.from_json(config.to_json()) == config


def test_a_model_older_than_a_setting_opens_as_it_was_trained():
    values = resolve(settings(preset="PRESET_PAPER"), 4).to_dict()
    newer = (
        "initialization",
        "dist_loss",
        "dist_focus",
        "scale_range",
        "outline_rim",
        "fit_sizes",
        "average_rays",
        "edge_margin",
        "gradient_limit",
        "refine_outlines",
        "test_flips",
    )
    assert Config.from_dict({k: v for k, v in values.items() if k not in newer}) == Config.from_dict(values)


def test_fast_trains_stacks_with_stock_losses():
    config = resolve(settings(), 3, stacks=True)
    assert (config.initialization, config.dist_loss, config.dist_focus) == ("glorot", "absolute", 1)
    assert (config.scale_range, config.outline_rim, config.fit_sizes, config.plan.learning_rate) == (0, 0, False, 2e-3)
    assert (config.average_rays, config.edge_margin, config.gradient_limit) == (False, 2, 0)
    assert not config.refine_outlines
    assert not config.test_flips
    assert config.plan.copy_paste == 0


@pytest.mark.parametrize(("field", "value"), [("initialization", "zero"), ("dist_loss", "squared")])
def test_choices_that_do_not_exist_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} is '{value}'; allowed"):
        dataclasses.replace(resolve(settings(), 4), **{field: value})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": {}}', '{"plan": 3}'])
def test_damaged_json_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        Config.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_rays", 7),
        ("n_rays", 129),
        ("grid", 3),
        ("unet_depth", 0),
        ("unet_filters", 3),
        ("features", 1000),
        ("dist_rate", 0),
        ("background_share", 1.5),
        ("likely_background", -0.1),
        ("jitter", float("nan")),
        ("dist_focus", -1),
        ("scale_range", 1.5),
        ("outline_rim", 11),
        ("edge_margin", 3),
        ("gradient_limit", -1),
    ],
)
def test_values_out_of_range_are_named(field, value):
    config = resolve(settings(), 4)
    with pytest.raises(ValueError, match=rf"{field} is {value}; allowed"):
        dataclasses.replace(config, **{field: value})


def test_a_crop_that_does_not_fit_the_network_is_refused():
    with pytest.raises(ValueError, match="crop_size is 48; grid 4 and unet_depth 3 allow multiples of 32"):
        resolve(settings(crop_size=48, stardist={"grid": 4, "unet_depth": 3}), 4)


def test_neither_config_nor_main_loads_tensorflow():
    code = "import sys, cellsparse_stardist.config, cellsparse_stardist.__main__; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0
