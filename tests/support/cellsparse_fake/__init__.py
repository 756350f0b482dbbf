"""A backend without a framework, for tests of what surrounds a backend. It takes the U-Net's settings."""

from cellsparse_trainer.contract import BackendSpec
from cellsparse_trainer.processes.launch import one_per_rank


def _light():
    from support.cellsparse_fake import light

    return light


def _framework():
    from support.cellsparse_fake import backend

    return backend


BACKEND = BackendSpec(
    name="unet",
    package=__name__,
    default_port=0,
    node_command=one_per_rank,
    light=_light,
    framework=_framework,
    preload="support.cellsparse_fake.backend",
)
