"""From the network's output to cells."""

import fastremap
import numpy as np
import numpy.typing as npt
import torch
from cellpose import dynamics, utils

from cellsparse_cellpose.config import Config
from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.types import Labels


def find_cells(output: npt.NDArray[np.float32], config: Config, scale: float, device: torch.device) -> Labels:
    """Follow the flows of an image to its cells, with Cellpose's own code.

    Args:
        output: Flows (y, x) times 5 and the logit of the cell probability, shape (3, Y, X).
        config: Thresholds.
        scale: Pixels that the network saw for each pixel of the image; smaller cells need fewer iterations.
        device: Where to compute.

    Returns:
        Label image, shape (Y, X): 0 background, 1 to n the cells of any size.
    """
    masks = dynamics.compute_masks(
        output[:2],
        output[2],
        niter=max(1, int(200 / scale)),
        cellprob_threshold=config.cellprob_threshold,
        flow_threshold=config.flow_threshold,
        device=device,
    )
    return tidy(masks)


def tidy(masks: npt.NDArray[np.generic], min_size: int = 0) -> Labels:
    """Fill holes and drop small cells.

    Stock Cellpose counts sizes by rank although labels have gaps after the flow check, so it may drop a neighbour of a
    small cell. Labels are therefore made consecutive first, and sizes are counted here.
    """
    masks, _ = fastremap.renumber(masks, in_place=False)
    filled: Labels = utils.fill_holes_and_remove_small_masks(masks, min_size=-1).astype(np.int32)
    return without_small(filled, min_size)
