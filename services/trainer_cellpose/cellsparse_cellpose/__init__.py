"""Trains Cellpose."""

from cellsparse_cellpose.config import Config
from cellsparse_trainer.contract import Backend, BackendSpec, LightBackend
from cellsparse_trainer.processes.launch import torchrun


def _light() -> LightBackend[Config]:
    from cellsparse_cellpose import light

    return light


def _framework() -> Backend[Config]:
    from cellsparse_cellpose import backend

    return backend


BACKEND = BackendSpec(
    name="cellpose",
    package=__name__,
    default_port=50052,
    node_command=torchrun,
    light=_light,
    framework=_framework,
    preload="cellsparse_cellpose.backend,torch._dynamo",  # optimizers import the latter
)
