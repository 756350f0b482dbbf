"""Small sparse samples and a small configuration for the Cellpose tests."""

import dataclasses

import numpy as np

from cellsparse_cellpose.config import Config, resolve
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample


def disc_sample(shape: tuple[int, int] = (60, 70), *, background: bool = True) -> Sample:
    """Two bright discs (radius 8, labels 2 and 7), a ring of background around them, the rest not labelled."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    label = np.full(shape, -1, np.int32)
    image = np.full(shape, 0.1, np.float32)
    for name, center in ((2, (20, 20)), (7, (38, 50))):
        distance = np.hypot(rows - center[0], columns - center[1])
        if background:
            label[(distance > 8) & (distance < 12)] = 0
        label[distance <= 8] = name
        image[distance <= 8] = 0.9
    label.setflags(write=False)
    image.setflags(write=False)
    return Sample(name="discs", image=image, label=label)


def small_config(**changes: object) -> Config:
    """A network of a few thousand weights on crops of 32 pixels, which takes images as they are."""
    settings = trainer_pb2.TrainingSettings(steps=6, batch_size=2, crop_size=32, seed=5, device=trainer_pb2.DEVICE_CPU)
    settings.precision = trainer_pb2.PRECISION_FLOAT32  # as all CPUs have it
    settings.cellpose.mean_diameter = 12
    config = resolve(settings, 1)
    return dataclasses.replace(config, **{"channels": (4, 4, 4, 256), "size_passes": 0, **changes})
