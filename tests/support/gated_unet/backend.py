"""What the training process loads: the U-Net's functions, with gates before, in and after its steps.

Two gates are in the middle of writing to the store: a checkpoint of which one file is there and no pointer points at
it, and a model of which one file is there and no card. The store is wrapped where the training process opens it.
"""

import re
import sys
from pathlib import Path

from support.gated_unet.gates import CHECKPOINT, FINISHING, FIRST_STEP, STARTING, wait_at

from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.training import prepare
from cellsparse_unet import backend as unet
from cellsparse_unet.backend import (
    EXPORTS,
    STOCK_PERCENTILES,
    UnetTraining,
    devices,
    gains_from_bfloat16,
    has_bfloat16,
    import_model,
    open_checkpoint,
    open_model,
    versions,
)

__all__ = [
    "EXPORTS",
    "STOCK_PERCENTILES",
    "create",
    "devices",
    "gains_from_bfloat16",
    "has_bfloat16",
    "import_model",
    "open_checkpoint",
    "open_model",
    "versions",
]

HELD_STEP = 4
"""A checkpoint of this step or a later one is held; an earlier one is whole by then."""
_CHECKPOINT = re.compile(r"runs/([^/]+)/checkpoints/(\d+)/.+")
_MODEL = re.compile(r"runs/([^/]+)/model/.+")
_open_store = prepare.open_store


class GatedTraining(UnetTraining):
    def train_step(self, step):
        losses = super().train_step(step)
        if step == 0:
            wait_at(_run_id(), FIRST_STEP)
        return losses


class GatedStore:
    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, data):
        self._store.put(key, data)
        if (found := _CHECKPOINT.fullmatch(key)) and int(found[2]) >= HELD_STEP:
            wait_at(found[1], CHECKPOINT)
        if found := _MODEL.fullmatch(key):
            wait_at(found[1], FINISHING)


def create(*arguments, **named):
    wait_at(_run_id(), STARTING)
    training = unet.create(*arguments, **named)
    training.__class__ = GatedTraining
    return training


def _run_id():
    return Job.read(Path(sys.argv[1])).request.run_id


prepare.open_store = lambda settings: GatedStore(_open_store(settings))
