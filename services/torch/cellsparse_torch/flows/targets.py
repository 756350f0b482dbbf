"""Flow targets from sparsely labelled images: made once per image and on labelled cells only."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_trainer.data.target_cache import Arrays, DiskCache

SMALLEST_DIAMETER = 5.0
"""Diameter in pixels that smaller cells count as (as in Cellpose), so that no image is blown up without bound."""


Flows = tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.integer[Any]]]
"""Unit flows (y, x) of cells, zero elsewhere, shape (2, Y, X); and one pixel (y, x) of each, shape (cells, 2)."""


@dataclass(frozen=True, kw_only=True)
class FlowMethod:
    """A tool's way from cells to flows."""

    name: str
    """Tool and version: what stands for the flows that it makes."""
    compute: Callable[[Labels], Flows]
    """Takes cells that are numbered 1 to n, 0 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What one image teaches; memory grows with the pixels of labelled cells, not with the image."""

    inside: npt.NDArray[np.int64]
    """Flat positions of the pixels of labelled cells, ascending."""
    flow: npt.NDArray[np.float32]
    """Unit flows (y, x) at those pixels, shape (2, len(inside))."""
    centers: npt.NDArray[np.int64]
    """One pixel (y, x) of each labelled cell, the nearest to its centroid, shape (cells, 2)."""
    diameter: float
    """Median diameter of the labelled cells in pixels; 0 without one."""
    background: int
    """Number of pixels labelled as background."""
    likely: npt.NDArray[np.uint8] | None = None
    """Unlabelled pixels that are most likely background, each row packed into bits, shape (Y, X / 8 rounded up)."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        likely = 0 if self.likely is None else self.likely.nbytes
        return self.inside.nbytes + self.flow.nbytes + self.centers.nbytes + likely


def make_targets(
    label: Labels, method: FlowMethod, likely: Mask | None = None, disk_cache: DiskCache | None = None
) -> Targets:
    """Make the flows of the labelled cells.

    Args:
        label: Label image, shape (Y, X): -1 not labelled, 0 background, n > 0 cell n. It is not changed.
        method: Makes the flows.
        likely: Unlabelled pixels that are most likely background, shape (Y, X); None for none.
        disk_cache: Where another training may have left the flows of the same cells; None for nowhere.
    """
    packed = None if likely is None else np.packbits(likely, axis=1)
    cells = _renumber(label)
    inside = np.flatnonzero(cells)
    background = int(np.count_nonzero(label == 0))
    if not inside.size:
        nothing = np.zeros((2, 0), np.float32)
        return Targets(
            inside=inside,
            flow=nothing,
            centers=np.zeros((0, 2), np.int64),
            diameter=0.0,
            background=background,
            likely=packed,
        )
    made = (
        _flows(cells, inside, method)
        if disk_cache is None
        else disk_cache.get(_key(cells, method), lambda: _flows(cells, inside, method))
    )
    areas = np.bincount(cells.ravel())[1:]
    return Targets(
        inside=inside,
        flow=made["flow"],
        centers=np.asarray(made["centers"], np.int64),
        diameter=max(SMALLEST_DIAMETER, float(np.median(np.sqrt(areas))) * 2 / np.pi**0.5),
        background=background,
        likely=packed,
    )


def _flows(cells: Labels, inside: npt.NDArray[np.int64], method: FlowMethod) -> Arrays:
    """Return the unit flows (y, x) of numbered cells at their pixels, and the cells' centers."""
    flow, centers = method.compute(cells)
    return {
        "flow": flow.reshape(2, -1)[:, inside].astype(np.float32),
        "centers": np.asarray(centers, np.int64),
    }


def _key(cells: Labels, method: FlowMethod) -> str:
    """Return what stands for these cells: no background, so that label sets that differ in it alone share flows."""
    about = f"{method.name} flows and centers {cells.shape}"
    return hashlib.sha256(about.encode() + cells.tobytes()).hexdigest()


def _renumber(label: Labels) -> Labels:
    """Return the cells as 1 ... n and everything else as 0, in a new array."""
    cells = np.zeros(label.shape, np.int32)
    pixels = np.flatnonzero(label > 0)  # few, so that sorting them costs little
    cells.ravel()[pixels] = np.unique(label.ravel()[pixels], return_inverse=True)[1] + 1
    return cells
