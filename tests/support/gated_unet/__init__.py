"""The U-Net backend, whose training process a test can hold at a phase (see `gates`); all else is the original."""

from dataclasses import replace

from cellsparse_unet import BACKEND as UNET


def _framework():
    from support.gated_unet import backend

    return backend


BACKEND = replace(UNET, package=__name__, default_port=0, framework=_framework, preload="support.gated_unet.backend")
