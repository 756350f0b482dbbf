"""Crops and flow targets from sparsely labelled images.

Flows are Cellpose's own, made once per image and on labelled cells only; a crop turns and scales them with its image.
Whatever a crop shows from outside its image is not labelled, so it carries no supervision.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.data.target_cache import Arrays, DiskCache

LIKELY = -2
"""Marks pixels of a crop that nobody labelled and that are most likely background."""

SMALLEST_DIAMETER = 5.0
"""Diameter in pixels that smaller cells count as (as in Cellpose), so that no image is blown up without bound."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What one image teaches; memory grows with the pixels of labelled cells, not with the image."""

    inside: NDArray[np.int64]
    """Flat positions of the pixels of labelled cells, ascending."""
    flow: NDArray[np.float32]
    """Unit flows (y, x) at those pixels, shape (2, len(inside))."""
    centers: NDArray[np.int64]
    """One pixel (y, x) of each labelled cell, the nearest to its centroid, shape (cells, 2)."""
    diameter: float
    """Median diameter of the labelled cells in pixels; 0 without one."""
    background: int
    """Number of pixels labelled as background."""
    likely: NDArray[np.uint8] | None = None
    """Unlabelled pixels that are most likely background, each row packed into bits, shape (Y, X / 8 rounded up)."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        likely = 0 if self.likely is None else self.likely.nbytes
        return self.inside.nbytes + self.flow.nbytes + self.centers.nbytes + likely


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square cut-out of side S."""

    image: NDArray[np.float32]
    """Shape (S, S); 0 outside the image."""
    label: NDArray[np.int16]
    """Shape (S, S): -1 not labelled or outside the image, 0 background, 1 cell, `LIKELY`."""
    flow: NDArray[np.float32]
    """Flows (y, x), zero outside labelled cells, shape (2, S, S)."""


def make_targets(
    label: NDArray[np.int32], likely: NDArray[np.bool_] | None = None, disk_cache: DiskCache | None = None
) -> Targets:
    """Runs Cellpose's heat diffusion on the labelled cells.

    Args:
        label: Label image, shape (Y, X): -1 not labelled, 0 background, n > 0 cell n. It is not changed.
        likely: Unlabelled pixels that are most likely background, shape (Y, X); None for none.
        disk_cache: Where flows of the same cells may be, made for another training; None for nowhere.

    Returns:
        The targets of the image.
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
    made = _flows(cells, inside) if disk_cache is None else disk_cache.get(_key(cells), lambda: _flows(cells, inside))
    corners = [(rows.start, columns.start) for rows, columns in find_objects(cells)]
    areas = np.bincount(cells.ravel())[1:]
    return Targets(
        inside=inside,
        flow=made["flow"],
        centers=np.asarray(made["centers"], np.int64) + np.array(corners, np.int64),
        diameter=max(SMALLEST_DIAMETER, float(np.median(np.sqrt(areas))) * 2 / np.pi**0.5),
        background=background,
        likely=packed,
    )


def _flows(cells: NDArray[np.int32], inside: NDArray[np.int64]) -> Arrays:
    """Returns the unit flows (y, x) of numbered cells at their pixels, and the cells' centers in their boxes."""
    from cellpose import dynamics  # loads torch, which the processes that only cut crops do without

    flow, centers = dynamics.masks_to_flows_cpu(cells)
    return {
        "flow": flow.reshape(2, -1)[:, inside].astype(np.float32),
        "centers": np.array(centers, np.int64),
    }


def _key(cells: NDArray[np.int32]) -> str:
    """Returns what stands for these cells: no background, so that label sets that differ in it alone share flows."""
    about = f"cellpose {version('cellpose')} flows {cells.shape}"
    return hashlib.sha256(about.encode() + cells.tobytes()).hexdigest()


def cut(sample: Sample, targets: Targets, matrix: NDArray[np.float64], size: int) -> Crop:
    """Cuts a turned, scaled and possibly mirrored square out of an image.

    Args:
        sample: The image.
        targets: Its targets.
        matrix: Affine map from image to crop coordinates (x, y), shape (2, 3); a rotation or reflection times a scale.
        size: Side of the crop in pixels.

    Returns:
        The crop; pixels whose place is outside the image are not labelled.
    """
    y0, y1, x0, x1 = _window(matrix, size, sample.label.shape)
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ (x0, y0)
    label = np.sign(sample.label[y0:y1, x0:x1]).astype(np.int16)
    if targets.likely is not None:
        label[np.unpackbits(targets.likely[y0:y1], axis=1)[:, x0:x1].astype(bool)] = LIKELY
    turn = matrix[:, :2] / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    flow_x, flow_y = np.einsum("ij,jyx->iyx", turn, _dense_flow(targets, sample.label.shape, (y0, y1, x0, x1))[::-1])

    def warp(plane: NDArray[Any], outside: int, flags: int) -> NDArray[Any]:
        piece = np.ascontiguousarray(plane)
        return np.asarray(cv2.warpAffine(piece, local, (size, size), flags=flags, borderValue=outside))

    return Crop(
        image=warp(sample.image[y0:y1, x0:x1], 0, cv2.INTER_LINEAR),
        label=warp(label, -1, cv2.INTER_NEAREST),
        flow=np.stack([warp(flow.astype(np.float32), 0, cv2.INTER_LINEAR) for flow in (flow_y, flow_x)]),
    )


def place(
    anchor: NDArray[Any], target: NDArray[Any], *, scale: float, angle: float, mirrored: bool
) -> NDArray[np.float64]:
    """Makes the affine map of a crop.

    Args:
        anchor: Place (y, x) in the image.
        target: Where the anchor comes to lie in the crop (y, x).
        scale: Crop pixels per image pixel.
        angle: Rotation in radians.
        mirrored: Whether to flip left and right first.

    Returns:
        Map from image to crop coordinates (x, y), shape (2, 3).
    """
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    if mirrored:
        linear[:, 0] *= -1
    shift = np.array(target, float)[::-1] - linear @ np.array(anchor, float)[::-1]
    return np.column_stack([linear, shift])


def _renumber(label: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the cells as 1 ... n and everything else as 0, in an array of its own."""
    cells = np.where(label > 0, label, 0)
    names, numbers = np.unique(cells, return_inverse=True)
    first = 0 if names[0] == 0 else 1
    return np.asarray(numbers.reshape(label.shape) + first, np.int32)


def _window(matrix: NDArray[np.float64], size: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns the part (y0, y1, x0, x1) of an image that a crop shows, at least one pixel, with a margin."""
    corners = np.array([[-1, -1], [-1, size], [size, -1], [size, size]], float).T
    places = np.linalg.solve(matrix[:, :2], corners - matrix[:, 2:])
    (x0, y0), (x1, y1) = np.floor(places.min(1)).astype(int) - 2, np.ceil(places.max(1)).astype(int) + 3
    y0, x0 = min(max(0, y0), shape[0] - 1), min(max(0, x0), shape[1] - 1)
    return y0, min(shape[0], max(y1, y0 + 1)), x0, min(shape[1], max(x1, x0 + 1))


def _dense_flow(targets: Targets, shape: tuple[int, ...], window: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Returns the flows (y, x) inside a window as an image of shape (2, Y, X)."""
    y0, y1, x0, x1 = window
    first, last = np.searchsorted(targets.inside, [y0 * shape[1], y1 * shape[1]])
    ys, xs = np.divmod(targets.inside[first:last], shape[1])
    here = (xs >= x0) & (xs < x1)
    flow = np.zeros((2, y1 - y0, x1 - x0), np.float32)
    flow[:, ys[here] - y0, xs[here] - x0] = targets.flow[:, first:last][:, here]
    return flow
