"""What is different for stacks: defaults, and the shape of cells that network and rays are built for."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cellsparse_stardist.config import Config

PAPER_OWN: dict[str, Any] = {"n_rays": 96, "unet_depth": 2}
"""Stock StarDist3D's defaults; the paper trained StarDist on 2D images only."""
PAPER_PLAN: dict[str, Any] = {"batch_size": 2, "crop_size": 96, "crop_depth": 48}
"""Patches of stock StarDist's 3D example."""
FAST_OWN: dict[str, Any] = {"n_rays": 64, "unet_depth": 2, "unet_filters": 16, "features": 64}
FAST_PLAN: dict[str, Any] = {"batch_size": 4, "crop_size": 32, "crop_depth": 16, "steps": 600}
FLAT = 1.5
"""Anisotropy along an axis above which it gets no coarser grid, as in stock StarDist's examples."""


def fitted(config: "Config", extents: npt.NDArray[np.int64], spacings: Sequence[tuple[float, ...]]) -> "Config":
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

    From the size of a pixel, where any sample tells it: the median of those samples. Else from the labelled cells'
    median extents, as `stardist.utils.calculate_extents` and stock StarDist's examples do.
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
