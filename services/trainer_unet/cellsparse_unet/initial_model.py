"""What a training takes over from the model that it starts from."""

import dataclasses
import json

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.training.initial_model import inherit
from cellsparse_unet.config import Config
from cellsparse_unet.instances import Cut


def adopt(config: Config, settings: trainer_pb2.TrainingSettings, text: str) -> Config:
    """Return the configuration with the network of a given model.

    Args:
        config: What the settings make without it.
        settings: What was asked for.
        text: The model's `config.json`.

    Raises:
        ValueError: A setting contradicts the model, or the text is no U-Net configuration.
    """
    start = Config.from_json(json.dumps(json.loads(text)["config"]))
    network = inherit(settings.unet, start, ("base_channels",), settings.initial_model)
    return dataclasses.replace(config, **network)


def fitted_cut(config: Config, cut: Cut) -> Cut:
    """Return the thresholds of a given model, but for what the configuration fixes."""
    if config.centre_threshold is not None:
        cut = dataclasses.replace(cut, centre_threshold=config.centre_threshold)
    if config.instance_method != "auto":
        cut = dataclasses.replace(cut, method=config.instance_method)
    return cut
