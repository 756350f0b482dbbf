"""Stacks: how far apart planes are, and the shape of cells that network and rays are built for."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config

FLAT = 1.5
"""Anisotropy along an axis above which it gets no coarser grid, as in stock StarDist's examples."""


def fitted(config: Config, extents: npt.NDArray[np.int64], spacings: Sequence[tuple[float, ...]]) -> Config:
    """Set anisotropy and the grid along z, where they are not set yet.

    The planes' grid is that of the pixels where cells are about as many planes deep as pixels wide and the crop's depth
    allows it, else 1.

    Args:
        config: Settings of a training on stacks.
        extents: Shape (cells, 3): size of each labelled cell's bounding box along Z, Y and X.
        spacings: `Sample.spacing` of the samples.
    """
    if config.anisotropy is not None:
        return config
    ratios = anisotropy(extents, spacings)
    unit = config.grid * 2**config.unet_depth
    fits = ratios[0] <= FLAT and (config.plan.crop_depth or 0) % unit == 0
    return dataclasses.replace(config, anisotropy=ratios, grid_z=config.grid if fits else 1)


def anisotropy(extents: npt.NDArray[np.int64], spacings: Sequence[tuple[float, ...]]) -> tuple[float, float, float]:
    """Return how much shorter than the longest a cell is along Z, Y and X in pixels, each from 1.

    They follow from the size of a pixel, the median of the samples that know it. If none does, they follow from the
    labelled cells' median extents, as `stardist.utils.calculate_extents` and stock StarDist's examples do.
    """
    known = [spacing for spacing in spacings if len(spacing) == 3 and set(spacing) != {1.0}]
    if known:
        size = np.median(np.array(known, float), axis=0)
        ratios = size / size.min()
    elif len(extents):
        size = np.median(extents, axis=0)
        ratios = size.max() / size
    else:
        ratios = np.ones(3)
    z, y, x = (round(float(ratio), 3) for ratio in ratios)
    return z, y, x
