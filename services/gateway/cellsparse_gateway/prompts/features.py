"""What tells a good mask from a bad one, for many masks of one window at once."""

import numpy as np
import numpy.typing as npt

from cellsparse_gateway.prompts.types import Plane

NAMES = (
    "size", "step", "weak", "inverse", "rough", "ellipse", "long", "spread", "around", "centred", "border", "agree",
    "bright",
)  # fmt: skip
"""Columns of `measure`."""


def overlaps(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the IoU (N, N) of masks (N, Y, X), none empty."""
    bits = np.packbits(masks.reshape(len(masks), -1), axis=1)
    words = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
    both = np.bitwise_count(words[:, None] & words[None]).sum(2, dtype=np.float32)
    area = np.diag(both)
    result: npt.NDArray[np.float32] = both / (area[:, None] + area[None] - both)
    return result


def _sums(masks: npt.NDArray[np.bool_], maps: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return for each map (Y, X) its sums (maps, N) over the masks.

    Not by a matrix product: BLAS would wake its threads for each of these small ones, which costs more than they do.
    """
    table = np.stack([each.ravel() for each in maps])
    result: npt.NDArray[np.float32] = np.einsum("kp,np->kn", table, masks.reshape(len(masks), -1).astype(np.float32))
    return result


def measure(
    masks: npt.NDArray[np.bool_],
    plane: Plane,
    row: int,
    column: int,
    *,
    diameter: float,
    background: float,
    value: float,
) -> npt.NDArray[np.float32]:
    """Return features (N, len(NAMES)) of masks (N, Y, X), none empty; all are free of scale and brightness.

    Args:
        masks: Masks that hold the clicked pixel.
        plane: Slightly blurred grey values in which the cell is bright.
        row: Clicked row.
        column: Clicked column.
        diameter: Typical diameter of a cell in pixels.
        background: Grey value of what is no cell.
        value: Grey value of the cell, above `background`.
    """
    grey = (plane - background) / (value - background)
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]].astype(np.float32)
    rows, columns = rows - np.float32(row), columns - np.float32(column)
    ones = np.ones_like(grey)
    area, *means = _sums(masks, [ones, grey, grey**2, rows, columns, rows**2, columns**2, rows * columns])
    inside, squares, cy, cx, yy, xx, xy = (each / area for each in means)
    spread = np.sqrt(np.maximum(squares - inside**2, 0))
    edge, fall, weak, inverse, outside, border = _edges(masks, grey, max(1, round(0.06 * diameter)))
    yy, xx, xy = yy - cy**2 + 1 / 12, xx - cx**2 + 1 / 12, xy - cy * cx
    det = np.sqrt(np.maximum(yy * xx - xy**2, 1e-6))
    half, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    contrast = np.maximum(inside, 0.05)
    result: npt.NDArray[np.float32] = np.stack(
        [
            np.log2(2 * np.sqrt(area / np.pi) / diameter),
            np.clip(fall / contrast, -1, 2),
            weak,
            inverse,
            np.log2(edge / np.sqrt(area)),
            np.clip(area / (4 * np.pi * det), 0, 1),
            0.5 * np.log2((half + root) / np.maximum(half - root, 1e-3)),
            np.clip(spread / contrast, 0, 2),
            np.clip(outside / contrast, -1, 2),
            np.hypot(cy, cx) / np.sqrt(area),
            border,
            overlaps(masks).mean(1),
            np.clip(inside, 0, 3),
        ],
        axis=1,
    ).astype(np.float32)
    return result


def _edges(masks: npt.NDArray[np.bool_], grey: Plane, reach: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Return of each mask's edge: length, mean fall, shares without and against a fall, value outside, border share."""
    sums = np.zeros((6, len(masks)), np.float32)
    height, width = grey.shape
    outer = np.pad(masks, ((0, 0), (1, 1), (1, 1)), mode="edge")
    padded = np.pad(grey, reach, mode="edge")
    for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        edge = masks & ~outer[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        before, after = (
            padded[reach + step * dy : reach + step * dy + height, reach + step * dx : reach + step * dx + width]
            for step in (1 - reach, reach)
        )
        fall = before - after
        weak, inverse = (fall < 0.1).astype(np.float32), (fall < -0.05).astype(np.float32)
        sums[:5] += _sums(edge, [np.ones_like(fall), fall, weak, inverse, after])
    sums[5] = masks[:, 0].sum(1) + masks[:, -1].sum(1) + masks[:, :, 0].sum(1) + masks[:, :, -1].sum(1)
    length = np.maximum(sums[0], 1)
    return length, sums[1] / length, sums[2] / length, sums[3] / length, sums[4] / length, sums[5] / length
