"""Small sparse samples and a tiny network of Cellpose-SAM's architecture for its tests."""

import dataclasses

import numpy as np
from segment_anything.build_sam import _build_sam

from cellsparse_cellpose_sam.config import Config, resolve
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample

DEPTH, WIDTH, HEADS = 2, 16, 2


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


def tiny_settings(**common: object) -> trainer_pb2.TrainingSettings:
    """Settings of a training of a network of a few hundred thousand weights."""
    settings = trainer_pb2.TrainingSettings(steps=6, batch_size=1, seed=5, device=trainer_pb2.DEVICE_CPU, **common)
    settings.cellpose_sam.encoder_depth = DEPTH
    settings.cellpose_sam.encoder_width = WIDTH
    settings.cellpose_sam.encoder_heads = HEADS
    return settings


def tiny_config(**changes: object) -> Config:
    """A configuration of such a training."""
    return dataclasses.replace(resolve(tiny_settings(), 1), **changes)


def tiny_sam(checkpoint: object = None) -> object:
    """Segment Anything as stock Cellpose asks for its ViT-L, in the tiny size."""
    return _build_sam(WIDTH, DEPTH, HEADS, encoder_global_attn_indexes=[0, 1], checkpoint=checkpoint)
