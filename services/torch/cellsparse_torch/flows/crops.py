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
from cellsparse_torch.windows import Window
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


@dataclass(frozen=True, kw_only=True)
class UncutCrop:
    """A crop of side S whose brightness and flows the device takes from its window."""

    label: npt.NDArray[np.int16]
    """As in `Crop`."""
    window: Window
    """Planes: the image's channels, then the flows (y, x) as they are in the image."""
    turn: npt.NDArray[np.float32]
    """What flows (y, x) of the image are multiplied with in the crop, shape (2, 2)."""


_Box = tuple[int, int, int, int]
"""A part (y0, y1, x0, x1) of an image."""


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
    window = _window(matrix, size, sample.label.shape)
    y0, y1, x0, x1 = window
    local = _from_window(matrix, window)
    flow_x, flow_y = np.einsum("ij,jyx->iyx", _turn(matrix), _dense_flow(targets, sample.label.shape, window)[::-1])
    return Crop(
        image=_warp(sample.image[y0:y1, x0:x1], local, size, 0, cv2.INTER_LINEAR),
        label=_cut_label(sample, targets, window, local, size),
        flow=np.stack([_warp(flow.astype(np.float32), local, size, 0, cv2.INTER_LINEAR) for flow in (flow_y, flow_x)]),
    )


def cut_window(
    sample: Sample,
    targets: Targets,
    matrix: npt.NDArray[np.float64],
    size: int,
    colours: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> UncutCrop:
    """Return the crop that `cut` cuts, its brightness and flows yet to be taken from its window.

    Args:
        sample: The image.
        targets: Its targets.
        matrix: As for `cut`.
        size: Side of the crop in pixels.
        colours: Gain and shift of each image channel.
    """
    window = _window(matrix, size, sample.label.shape)
    y0, y1, x0, x1 = window
    local = _from_window(matrix, window)
    image = sample.image[y0:y1, x0:x1]
    channels = image[np.newaxis] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    back = np.asarray(cv2.invertAffineTransform(local), np.float64)
    return UncutCrop(
        label=_cut_label(sample, targets, window, local, size),
        window=Window(
            planes=np.concatenate([channels, _dense_flow(targets, sample.label.shape, window)]),
            matrix=back[::-1][:, [1, 0, 2]],
            gain=colours[0],
            shift=colours[1],
        ),
        turn=_turn(matrix)[::-1, ::-1].astype(np.float32),
    )


def _cut_label(
    sample: Sample, targets: Targets, window: _Box, local: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.int16]:
    y0, y1, x0, x1 = window
    label = np.sign(sample.label[y0:y1, x0:x1]).astype(np.int16)
    if targets.likely is not None:
        label[np.unpackbits(targets.likely[y0:y1], axis=1)[:, x0:x1].astype(bool)] = LIKELY
    return _warp(label, local, size, -1, cv2.INTER_NEAREST)


def _from_window(matrix: npt.NDArray[np.float64], window: _Box) -> npt.NDArray[np.float64]:
    """Return the map of a crop from its window instead of from the image, both (x, y)."""
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ (window[2], window[0])
    return local


def _turn(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what a map does to directions (x, y)."""
    return np.asarray(matrix[:, :2] / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _warp(
    plane: npt.NDArray[Any], local: npt.NDArray[np.float64], size: int, outside: int, flags: int
) -> npt.NDArray[Any]:
    piece = np.ascontiguousarray(plane)
    return np.asarray(cv2.warpAffine(piece, local, (size, size), flags=flags, borderValue=outside))


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


def _window(matrix: npt.NDArray[np.float64], size: int, shape: tuple[int, ...]) -> _Box:
    """Return the part (y0, y1, x0, x1) of an image that a crop shows, at least one pixel, with a margin."""
    corners = np.array([[-1, -1], [-1, size], [size, -1], [size, size]], float).T
    points = np.linalg.solve(matrix[:, :2], corners - matrix[:, 2:])
    (x0, y0), (x1, y1) = np.floor(points.min(1)).astype(int) - 2, np.ceil(points.max(1)).astype(int) + 3
    y0, x0 = min(max(0, y0), shape[0] - 1), min(max(0, x0), shape[1] - 1)
    return y0, min(shape[0], max(y1, y0 + 1)), x0, min(shape[1], max(x1, x0 + 1))


def _dense_flow(targets: Targets, shape: tuple[int, ...], window: _Box) -> npt.NDArray[np.float32]:
    """Return the flows (y, x) inside a window as an image of shape (2, Y, X)."""
    y0, y1, x0, x1 = window
    first, last = np.searchsorted(targets.inside, [y0 * shape[1], y1 * shape[1]])
    ys, xs = np.divmod(targets.inside[first:last], shape[1])
    here = (xs >= x0) & (xs < x1)
    flow = np.zeros((2, y1 - y0, x1 - x0), np.float32)
    flow[:, ys[here] - y0, xs[here] - x0] = targets.flow[:, first:last][:, here]
    return flow
