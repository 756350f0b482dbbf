"""The part of the backend that loads no framework (see `LightBackend`)."""

from cellsparse_unet.config import Config, resolve
from cellsparse_unet.initial_model import adopt

__all__ = ["Config", "adopt", "resolve"]
