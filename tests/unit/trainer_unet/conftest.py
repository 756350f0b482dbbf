"""Synthetic cells and a configuration that trains in moments."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet.config import Config, resolve


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks this small only wait for each other's threads."""
    torch.set_num_threads(1)


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A tiny FAST configuration in float32, as all CPUs have it; keywords replace fields of it or of its plan."""

    def make(**changes: Any) -> Config:
        config = resolve(trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings()), 1)
        plan = {"steps": 6, "batch_size": 2, "crop_size": 32, "device": "cpu", "precision": "float32"}
        plan |= {name: changes.pop(name) for name in list(changes) if hasattr(config.plan, name)}
        return replace(config, plan=replace(config.plan, **plan), **({"base_channels": 4} | changes))

    return make


@pytest.fixture
def cell_sample() -> Sample:
    """Twelve bright cells of radius 7 on 96 x 80 pixels; two are labelled, and some background beside them."""
    shape = (96, 80)
    yy, xx = np.indices(shape)
    dense = np.zeros(shape, np.int32)
    for n in range(12):
        dense[(yy - 14 - 22 * (n // 3)) ** 2 + (xx - 14 - 25 * (n % 3)) ** 2 <= 49] = n + 1
    label = np.full(shape, -1, np.int32)
    kept = np.isin(dense, (2, 7))
    label[ndimage.binary_dilation(kept, iterations=4)] = 0
    label[kept] = dense[kept]
    noise = np.random.default_rng(0).normal(0, 0.03, shape)
    image = np.clip(0.2 + 0.6 * (dense > 0) + noise, 0, 1).astype(np.float32)
    image.setflags(write=False)
    label.setflags(write=False)
    return Sample(name="cells", image=image, label=label)
