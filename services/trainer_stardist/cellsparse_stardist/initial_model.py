"""What a training takes over from the model that it starts from."""

import dataclasses

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist.config import Config
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.training.initial_model import inherit

ARCHITECTURE = ("n_rays", "grid", "unet_depth", "unet_filters")


def adopt(config: Config, settings: trainer_pb2.TrainingSettings, text: str) -> Config:
    """Return the configuration with the network of a given model.

    Args:
        config: What the settings make without it.
        settings: What was asked for.
        text: The model's `config.json`.

    Raises:
        ValueError: A setting contradicts the model, or the text is no StarDist configuration.
    """
    start = Config.from_dict(ModelConfig.from_json(text).config)
    network = inherit(settings.stardist, start, ARCHITECTURE, settings.initial_model)
    plan = config.plan
    if not settings.HasField("crop_size"):
        plan = dataclasses.replace(plan, crop_size=fit(plan.crop_size, start.grid * 2**start.unet_depth))
    if plan.crop_depth is not None and not settings.HasField("crop_depth"):
        plan = dataclasses.replace(plan, crop_depth=fit(plan.crop_depth, (start.grid_z or 1) * 2**start.unet_depth))
    return dataclasses.replace(
        config, plan=plan, **network, features=start.features, grid_z=start.grid_z, anisotropy=start.anisotropy
    )


def fit(pixels: int, unit: int) -> int:
    """Return the smallest multiple of `unit` that is not below `pixels`."""
    return -(-pixels // unit) * unit
