"""The part of the backend that loads no framework (see `LightBackend`)."""

from cellsparse_cellpose_sam.config import Config, resolve
from cellsparse_cellpose_sam.initial_model import adopt

__all__ = ["Config", "adopt", "resolve"]
