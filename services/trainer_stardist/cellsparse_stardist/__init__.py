"""Trains StarDist."""

from cellsparse_stardist.config import Config
from cellsparse_trainer.contract import Backend, BackendSpec, LightBackend
from cellsparse_trainer.processes.launch import one_per_rank


def _light() -> LightBackend[Config]:
    from cellsparse_stardist import light

    return light


def _framework() -> Backend[Config]:
    from cellsparse_stardist import backend

    return backend


BACKEND = BackendSpec(
    name="stardist",
    package=__name__,
    default_port=50053,
    node_command=one_per_rank,
    light=_light,
    framework=_framework,
    preload="cellsparse_stardist.backend",
    # OpenMP computes the rays of small crops here. While its threads spin after that, they take the cores from
    # TensorFlow's own threads, which would start the next step.
    environment={"GOMP_SPINCOUNT": "1000"},
)
