"""Trains ELEPHANT's U-Net."""

from cellsparse_trainer.contract import Backend, BackendSpec, LightBackend
from cellsparse_trainer.processes.launch import torchrun
from cellsparse_unet.config import Config


def _light() -> LightBackend[Config]:
    from cellsparse_unet import light

    return light


def _framework() -> Backend[Config]:
    from cellsparse_unet import backend

    return backend


BACKEND = BackendSpec(
    name="unet",
    package=__name__,
    default_port=50054,
    node_command=torchrun,
    light=_light,
    framework=_framework,
    preload="cellsparse_unet.backend,torch._dynamo",  # optimizers import the latter
)
