"""Settings of Cellpose-SAM; no framework is needed."""

import dataclasses

import pytest

from cellsparse_cellpose_sam.config import ENCODER, Config, resolve
from cellsparse_cellpose_sam.initial_model import adopt
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import ModelConfig


def settings(**own) -> trainer_pb2.TrainingSettings:
    return trainer_pb2.TrainingSettings(cellpose_sam=trainer_pb2.CellposeSamSettings(**own))


def test_fast_learns_low_rank_updates_of_the_stock_network():
    config = resolve(settings(), 3)
    assert (config.trainable, config.lora_rank, config.encoder) == ("lora", 8, ENCODER)
    assert config.plan.crop_size == 256
    assert config.plan.schedule == "cosine"


def test_paper_trains_all_as_stock_cellpose_does():
    asked = settings()
    asked.preset = trainer_pb2.PRESET_PAPER
    config = resolve(asked, 7)
    assert (config.trainable, config.layer_drop, config.likely_background) == ("all", 0.4, 0)
    plan = config.plan
    assert (plan.steps, plan.batch_size, plan.learning_rate, plan.weight_decay) == (700, 1, 1e-5, 0.1)
    assert (plan.lower_percentile, plan.upper_percentile, plan.precision) == (0, 100, "float32")


@pytest.mark.parametrize(
    ("trainable", "rate"),
    [(trainer_pb2.TRAINABLE_READOUT, 1e-3), (trainer_pb2.TRAINABLE_LORA, 5e-4), (trainer_pb2.TRAINABLE_ALL, 2e-5)],
)
def test_the_more_changes_the_smaller_the_rate(trainable, rate):
    assert resolve(settings(trainable=trainable), 1).plan.learning_rate == rate


def test_given_settings_win():
    asked = settings(trainable=trainer_pb2.TRAINABLE_READOUT, min_size=4)
    asked.learning_rate, asked.steps = 0.01, 9
    config = resolve(asked, 1)
    assert (config.min_size, config.plan.learning_rate, config.plan.steps) == (4, 0.01, 9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora_rank": 0}, "lora_rank is 0; allowed: 1 to 64"),
        ({"layer_drop": 1.0}, "layer_drop is 1.0; allowed: 0 to 0.9"),
        ({"trainable": "some"}, "trainable is 'some'; allowed: readout, lora, all"),
        ({"stitch_threshold": 0.0}, "stitch_threshold is 0.0; allowed: above 0 to 1"),
        ({"encoder_heads": 3}, "encoder_width is 1024; allowed: multiples of encoder_heads, 3"),
    ],
)
def test_values_out_of_range(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(resolve(settings(), 1), **change)


def test_crops_have_the_size_that_the_encoder_takes():
    asked = settings()
    asked.crop_size = 224
    with pytest.raises(ValueError, match="crop_size is 224; allowed: 256"):
        resolve(asked, 1)


def test_stacks_are_trained_on_by_planes():
    asked = settings()
    assert resolve(asked, 5, stacks=True).plan.crop_depth is None
    asked.crop_depth = 8
    with pytest.raises(ValueError, match="crop_depth is 8; allowed: not set"):
        resolve(asked, 5, stacks=True)


def test_the_encoder_is_the_initial_models():
    tiny = dataclasses.replace(resolve(settings(), 1), encoder_depth=2, encoder_width=16, encoder_heads=2)
    text = ModelConfig(config=tiny.to_dict(), fitted={"diameter": 20.0}).to_json()
    assert adopt(resolve(settings(), 1), settings(), text).encoder == (2, 16, 2)
    with pytest.raises(ValueError, match="encoder_depth is 3, but initial_model"):
        adopt(resolve(settings(), 1), settings(encoder_depth=3), text)


def test_at_rest_it_is_the_same():
    config = resolve(settings(), 2)
    assert Config.from_json(config.to_json()) == config
