"""What a training takes over from the model that it starts from."""

import dataclasses

from cellsparse_cellpose_sam.config import ARCHITECTURE, Config
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.training.initial_model import inherit


def adopt(config: Config, settings: trainer_pb2.TrainingSettings, text: str) -> Config:
    """Return the configuration with the encoder of a given model.

    Args:
        config: What the settings make without it.
        settings: What was asked for.
        text: The model's `config.json`.

    Raises:
        ValueError: A setting contradicts the model, or the text is no Cellpose-SAM configuration.
    """
    start = Config.from_dict(ModelConfig.from_json(text).config)
    encoder = inherit(settings.cellpose_sam, start, ARCHITECTURE, settings.initial_model)
    return dataclasses.replace(config, **encoder)
