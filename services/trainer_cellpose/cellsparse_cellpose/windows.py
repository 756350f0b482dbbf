"""Large images: the network's output for any part of them, equal to that of a pass over the whole."""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from cellsparse_cellpose.inference import InferenceNetwork
from cellsparse_cellpose.tiles import MULTIPLE, REACH, TILE, Box, cut, image_style, padding
from cellsparse_common.imaging.types import Floats

_CHANNELS = 2
_SIDE = TILE - 2 * REACH


class Source(Protocol):
    """An image that is read in parts."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def read(self, box: Box) -> Floats:
        """Return a part, axes YX or YXC, values in [0, 1]."""


class LargeFlows:
    """The network's output of one image at one scale.

    Args:
        network: The network, on the device it is on.
        image: The image.
        scaled: Height and width of the image that the network sees.
    """

    def __init__(self, network: InferenceNetwork, image: Source, scaled: tuple[int, int]) -> None:
        self._network, self._image, self._scaled = network, image, scaled
        above, below, left, right = padding(*scaled)
        self._above, self._left = above, left
        self._padded = scaled[0] + above + below, scaled[1] + left + right
        with torch.inference_mode():
            self._style = image_style(network, self._padded, _SIDE, self._read_padded)

    def output(self, box: Box) -> npt.NDArray[np.float32]:
        """Return flows (y, x) times 5 and the logit of the cell probability, shape (3, Y, X), of a part."""
        height, width = self._image.shape
        rows = _Lines.of(box[0], box[1], height, self._scaled[0])
        columns = _Lines.of(box[2], box[3], width, self._scaled[1])
        found = self._run((rows.first, rows.end, columns.first, columns.end))
        return columns.apply(rows.apply(found, 1), 2)

    def _run(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the output of a part of the scaled image."""
        result = np.empty((3, box[1] - box[0], box[3] - box[2]), np.float32)
        for top in range(box[0], box[1], _SIDE):
            for left in range(box[2], box[3], _SIDE):
                part = top, min(top + _SIDE, box[1]), left, min(left + _SIDE, box[3])
                at = part[0] - box[0], part[1] - box[0], part[2] - box[2], part[3] - box[2]
                result[:, at[0] : at[1], at[2] : at[3]] = self._run_tile(part)
        return result

    def _run_tile(self, box: Box) -> npt.NDArray[np.float32]:
        place = box[0] + self._above, box[1] + self._above, box[2] + self._left, box[3] + self._left
        seen = (
            *_aligned(place[0], place[1], self._padded[0]),
            *_aligned(place[2], place[3], self._padded[1]),
        )
        with torch.inference_mode():
            x = torch.from_numpy(self._read_padded(seen))[None].to(self._network.device)
            found = self._network.upsample(self._style, self._network.downsample(x))
            output: npt.NDArray[np.float32] = cut(found, seen, place, 1)[0].float().cpu().numpy()
        return output

    def _read_padded(self, box: Box) -> npt.NDArray[np.float32]:
        """Return a part of the scaled image with zeros around it, shape (channels, Y, X)."""
        result = np.zeros((_CHANNELS, box[1] - box[0], box[3] - box[2]), np.float32)
        rows = max(box[0], self._above), min(box[1], self._above + self._scaled[0])
        columns = max(box[2], self._left), min(box[3], self._left + self._scaled[1])
        if rows[0] < rows[1] and columns[0] < columns[1]:
            part = self._read_scaled(
                (rows[0] - self._above, rows[1] - self._above, columns[0] - self._left, columns[1] - self._left)
            )
            result[: len(part), rows[0] - box[0] : rows[1] - box[0], columns[0] - box[2] : columns[1] - box[2]] = part
        return result

    def _read_scaled(self, box: Box) -> npt.NDArray[np.float32]:
        height, width = self._image.shape
        rows = _Lines.of(box[0], box[1], self._scaled[0], height)
        columns = _Lines.of(box[2], box[3], self._scaled[1], width)
        part = self._image.read((rows.first, rows.end, columns.first, columns.end))
        part = part[np.newaxis] if part.ndim == 2 else part.transpose(2, 0, 1)
        return columns.apply(rows.apply(part, 1), 2)


class _Lines:
    """Rows or columns of a resized image, each between two of the original one, as OpenCV's INTER_LINEAR has them."""

    def __init__(
        self, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], weight: npt.NDArray[np.float32]
    ) -> None:
        self.first, self.end = int(low[0]), int(high[-1]) + 1
        self._low, self._high, self._weight = low - self.first, high - self.first, weight

    @classmethod
    def of(cls, start: int, end: int, length: int, source: int) -> "_Lines":
        """Return lines `start` to `end` of `length` ones that are made of `source` ones."""
        if length == source:
            same = np.arange(start, end)
            return cls(same, same, np.zeros(end - start, np.float32))
        place = ((np.arange(start, end) + 0.5) * (source / length) - 0.5).astype(np.float32)
        low = np.floor(place).astype(np.int64)
        weight = np.where((low < 0) | (low >= source - 1), np.float32(0), place - low.astype(np.float32))
        low = np.clip(low, 0, source - 1)
        return cls(low, np.minimum(low + 1, source - 1), weight.astype(np.float32))

    def apply(self, part: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
        """Return the lines, given those of the original from `first` to `end` along an axis."""
        if not self._weight.any():
            return np.ascontiguousarray(np.take(part, self._low, axis))
        weight = self._weight.reshape([-1 if at == axis else 1 for at in range(part.ndim)])
        result: npt.NDArray[np.float32] = np.take(part, self._low, axis) * (1 - weight)
        result += np.take(part, self._high, axis) * weight
        return result


def _aligned(start: int, end: int, length: int) -> tuple[int, int]:
    """Return what the network has to see for a part, from and to multiples of what it pools."""
    first = max(0, start - REACH) // MULTIPLE * MULTIPLE
    return first, min(length, math.ceil((end + REACH) / MULTIPLE) * MULTIPLE)
