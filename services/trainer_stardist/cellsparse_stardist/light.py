"""The part of the backend that loads no framework (see `LightBackend`)."""

from cellsparse_stardist.config import Config, resolve
from cellsparse_stardist.initial_model import adopt

__all__ = ["Config", "adopt", "resolve"]
