"""What a training takes over from the model that it starts from."""

import dataclasses

from cellsparse_cellpose.config import Config
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import ModelConfig


def adopt(config: Config, settings: trainer_pb2.TrainingSettings, text: str) -> Config:
    """Return the configuration with the network of a given model.

    Args:
        config: What the settings make without it.
        settings: What was asked for; its mean diameter, if it gives one, stays.
        text: The model's `config.json`.

    Raises:
        ValueError: The text is no Cellpose configuration.
    """
    start = Config.from_dict(ModelConfig.from_json(text).config)
    if not settings.cellpose.HasField("mean_diameter"):
        # The network knows cells of this size: others would be a change of task.
        config = dataclasses.replace(config, mean_diameter=start.mean_diameter)
    return dataclasses.replace(config, channels=start.channels)
