import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist.config import Config, resolve
from cellsparse_trainer.data.samples import Sample


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Returns the FAST preset in float32, with a net and crops that train in no time; keywords replace settings."""

    def make(**changes: Any) -> Config:
        config = resolve(trainer_pb2.TrainingSettings(seed=7, stardist={}), 2)
        plan_names = {field.name for field in dataclasses.fields(config.plan)}
        plan_values = {"crop_size": 32, "batch_size": 2, "steps": 20, "precision": "float32"} | {
            name: value for name, value in changes.items() if name in plan_names
        }
        own_values = {"unet_depth": 1, "unet_filters": 4, "features": 8, "n_rays": 8} | {
            name: value for name, value in changes.items() if name not in plan_names
        }
        return dataclasses.replace(config, plan=dataclasses.replace(config.plan, **plan_values), **own_values)

    return make


def disks(shape: tuple[int, int], seed: int, *, sparse: bool) -> Sample:
    """Bright disks of radius 5 to 9 on a dark ground; sparse: half of them and a frame of background are labelled."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    label = np.zeros(shape, np.int32)
    for number in range(1, 9):
        centre, radius = rng.integers(0, shape), rng.uniform(5, 9)
        inside = np.hypot(rows - centre[0], columns - centre[1]) < radius
        label[inside & (label == 0)] = number * 1000
    image = (np.where(label > 0, 0.8, 0.1) + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    if sparse:
        known = (label > 0) & (label % 2000 == 0)
        known[:4] |= label[:4] == 0
        label = np.where(known, label, -1).astype(np.int32)
    image.setflags(write=False)
    label.setflags(write=False)
    return Sample(name=f"disks-{seed}", image=image, label=label)


@pytest.fixture
def sparse_samples() -> list[Sample]:
    return [disks((64, 80), 1, sparse=True), disks((40, 100), 2, sparse=True)]


@pytest.fixture
def dense_sample() -> Sample:
    return disks((64, 64), 3, sparse=False)
