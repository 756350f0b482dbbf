"""Turned, scaled and mirrored squares of an image, its labels and its flow targets.

Whatever a crop shows from outside its image is not labelled, so it carries no supervision.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Floats
from cellsparse_torch.flows.targets import Targets
from cellsparse_trainer.data.background import LIKELY
from cellsparse_trainer.data.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square cut-out of side S."""

    image: Floats
    """Shape (S, S), with several channels (S, S, C), at most 4; 0 outside the image."""
    label: npt.NDArray[np.int16]
    """Shape (S, S): -1 not labelled or outside the image, 0 background, 1 cell, `LIKELY`."""
    flow: npt.NDArray[np.float32]
    """Flows (y, x), zero outside labelled cells, shape (2, S, S)."""


def cut(sample: Sample, targets: Targets, matrix: npt.NDArray[np.float64], size: int) -> Crop:
    """Cut a turned, scaled and possibly mirrored square out of an image.

    Args:
        sample: The image.
        targets: Its targets.
        matrix: Affine map from image to crop coordinates (x, y), shape (2, 3); a rotation or reflection times a scale.
        size: Side of the crop in pixels.

    Returns:
        The crop; pixels from outside the image are not labelled.
    """
    y0, y1, x0, x1 = _window(matrix, size, sample.label.shape)
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ (x0, y0)
    label = np.sign(sample.label[y0:y1, x0:x1]).astype(np.int16)
    if targets.likely is not None:
        label[np.unpackbits(targets.likely[y0:y1], axis=1)[:, x0:x1].astype(bool)] = LIKELY
    turn = matrix[:, :2] / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    flow_x, flow_y = np.einsum("ij,jyx->iyx", turn, _dense_flow(targets, sample.label.shape, (y0, y1, x0, x1))[::-1])

    def warp(plane: npt.NDArray[Any], outside: int, flags: int) -> npt.NDArray[Any]:
        piece = np.ascontiguousarray(plane)
        return np.asarray(cv2.warpAffine(piece, local, (size, size), flags=flags, borderValue=outside))

    return Crop(
        image=warp(sample.image[y0:y1, x0:x1], 0, cv2.INTER_LINEAR),
        label=warp(label, -1, cv2.INTER_NEAREST),
        flow=np.stack([warp(flow.astype(np.float32), 0, cv2.INTER_LINEAR) for flow in (flow_y, flow_x)]),
    )


def affine_map(
    anchor: npt.NDArray[Any], target: npt.NDArray[Any], *, scale: float, angle: float, mirrored: bool
) -> npt.NDArray[np.float64]:
    """Return the affine map of a crop.

    Args:
        anchor: A point (y, x) of the image.
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


def _window(matrix: npt.NDArray[np.float64], size: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the part (y0, y1, x0, x1) of an image that a crop shows, at least one pixel, with a margin."""
    corners = np.array([[-1, -1], [-1, size], [size, -1], [size, size]], float).T
    points = np.linalg.solve(matrix[:, :2], corners - matrix[:, 2:])
    (x0, y0), (x1, y1) = np.floor(points.min(1)).astype(int) - 2, np.ceil(points.max(1)).astype(int) + 3
    y0, x0 = min(max(0, y0), shape[0] - 1), min(max(0, x0), shape[1] - 1)
    return y0, min(shape[0], max(y1, y0 + 1)), x0, min(shape[1], max(x1, x0 + 1))


def _dense_flow(targets: Targets, shape: tuple[int, ...], window: tuple[int, int, int, int]) -> npt.NDArray[np.float32]:
    """Return the flows (y, x) inside a window as an image of shape (2, Y, X)."""
    y0, y1, x0, x1 = window
    first, last = np.searchsorted(targets.inside, [y0 * shape[1], y1 * shape[1]])
    ys, xs = np.divmod(targets.inside[first:last], shape[1])
    here = (xs >= x0) & (xs < x1)
    flow = np.zeros((2, y1 - y0, x1 - x0), np.float32)
    flow[:, ys[here] - y0, xs[here] - x0] = targets.flow[:, first:last][:, here]
    return flow
