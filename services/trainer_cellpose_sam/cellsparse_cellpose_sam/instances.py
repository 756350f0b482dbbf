"""From the network's output to cells."""

import fastremap
import numpy as np
import numpy.typing as npt
import torch
from cellpose import dynamics, utils

from cellsparse_cellpose_sam.config import Config
from cellsparse_common.imaging.types import Labels


def find_cells(output: npt.NDArray[np.float32], config: Config, device: torch.device) -> Labels:
    """Follow the flows of an image to its cells, with Cellpose 4's own code.

    Args:
        output: Flows (y, x) times 5 and the logit of the cell probability, shape (3, Y, X).
        config: Thresholds.
        device: Where to compute.

    Returns:
        Label image, shape (Y, X): 0 background, 1 to n the cells of any size, without holes.
    """
    masks = dynamics.compute_masks(
        output[:2],
        output[2],
        cellprob_threshold=config.cellprob_threshold,
        flow_threshold=config.flow_threshold,
        device=device,
    )
    numbered, _ = fastremap.renumber(masks, in_place=False)
    filled: Labels = utils.fill_holes_and_remove_small_masks(numbered, min_size=-1).astype(np.int32)
    return filled
