"""Trains Cellpose-SAM."""

from cellsparse_cellpose_sam.config import Config
from cellsparse_trainer.contract import Backend, BackendSpec, LightBackend
from cellsparse_trainer.processes.launch import torchrun


def _light() -> LightBackend[Config]:
    from cellsparse_cellpose_sam import light

    return light


def _framework() -> Backend[Config]:
    from cellsparse_cellpose_sam import backend

    return backend


BACKEND = BackendSpec(
    name="cellpose_sam",
    package=__name__,
    default_port=50055,
    node_command=torchrun,
    light=_light,
    framework=_framework,
    preload="cellsparse_cellpose_sam.backend,torch._dynamo",  # optimizers import the latter
)
