"""Flows of cells, by Cellpose 4's own heat diffusion."""

from importlib.metadata import version

import numpy as np

from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_torch.flows import targets
from cellsparse_torch.flows.targets import FlowMethod, Flows, Targets
from cellsparse_trainer.data.target_cache import DiskCache


def make_targets(label: Labels, likely: Mask | None = None, disk_cache: DiskCache | None = None) -> Targets:
    """Make the targets of an image with Cellpose 4's flows (see `flows.targets.make_targets`)."""
    method = FlowMethod(name=f"cellpose {version('cellpose')}", compute=_flows)
    return targets.make_targets(label, method, likely, disk_cache)


def _flows(cells: Labels) -> Flows:
    from cellpose import dynamics  # loads torch, which the processes that only cut crops do without

    flow, boxes = dynamics.masks_to_flows_gpu(cells)
    centers, _ = dynamics.get_centers(cells, boxes)
    return flow, np.asarray(centers, np.int64)
