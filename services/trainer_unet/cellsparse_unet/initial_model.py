"""What a training takes over from the model that it starts from."""

import dataclasses

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.training.initial_model import inherit
from cellsparse_unet.config import Config
from cellsparse_unet.instances import Thresholds


def adopt(config: Config, settings: trainer_pb2.TrainingSettings, text: str) -> Config:
    """Return the configuration with the network of a given model.

    Args:
        config: What the settings make without it.
        settings: What was asked for.
        text: The model's `config.json`.

    Raises:
        ValueError: A setting contradicts the model, or the text is no U-Net configuration.
    """
    start = Config.from_dict(ModelConfig.from_json(text).config)
    network = inherit(settings.unet, start, ("base_channels",), settings.initial_model)
    return dataclasses.replace(config, **network)


def adopt_thresholds(config: Config, thresholds: Thresholds) -> Thresholds:
    """Return the thresholds of a given model, except for those that the configuration fixes."""
    if config.centre_threshold is not None:
        thresholds = dataclasses.replace(thresholds, centre_threshold=config.centre_threshold)
    if config.instance_method != "auto":
        thresholds = dataclasses.replace(thresholds, method=config.instance_method)
    return thresholds
