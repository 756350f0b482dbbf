"""How far apart the planes of stacks are, and what the network makes of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet.config import Config
from cellsparse_unet.network import LEVELS, flat_levels


def fitted(config: Config, samples: Sequence[Sample]) -> Config:
    """Set what depends on the spacing of the training items.

    Args:
        config: Settings of the training.
        samples: Training items, at least one; images leave the settings as they are.

    Returns:
        The settings, for stacks with the median distance of planes and the levels that keep them (`flat_levels`).

    Raises:
        InvalidArgument: An item has other axes than the settings are for, or crops cannot be halved in depth as often
            as the network does.
    """
    axes = "ZYX"[-config.dims :]
    distances = []
    for sample in samples:
        if sample.label.ndim != config.dims:
            raise InvalidArgument(
                f"Item {sample.name!r} has {sample.label.ndim} axes; allowed in this training: {config.dims} ({axes}).",
                "dataset_id",
            )
        distances.append(sample.spacing[0] / sample.spacing[-1] if sample.spacing else 1.0)
    depth = config.plan.crop_depth
    if depth is None:
        return config
    distance = float(np.clip(np.median(distances), 0.1, 100))
    levels = flat_levels(distance)
    multiple = 2 ** (LEVELS - levels)
    if depth % multiple:
        raise InvalidArgument(
            f"crop_depth is {depth}; allowed where planes are {distance:.3g} pixels apart: multiples of {multiple}.",
            "settings.crop_depth",
        )
    return replace(config, plane_distance=distance, flat_levels=levels)
