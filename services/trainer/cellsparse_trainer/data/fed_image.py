"""An image as a network gets it, window by window: channels chosen, normalised by the whole image's percentiles."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.disk_array import release, zeros
from cellsparse_common.imaging.images import scale_to_unit
from cellsparse_common.imaging.percentiles import streamed_percentiles
from cellsparse_common.imaging.types import Floats

Box: TypeAlias = tuple[int, int, int, int]
"""top, bottom, left, right in pixels."""

LARGE_PIXELS = 2**24
"""Pixels of an image from which it is never whole in memory: 4096 x 4096."""
LARGE_TIMES = 8
"""How many times as long a large image may take: 10,000 x 10,000 pixels are 6 times as many."""
_BAND_PIXELS = 2**22


class FedImage:
    """A 2D image of any size.

    Args:
        array: Axes YX or YXC; may be on disk.
        feed: Returns what the network takes of a part of it, before normalisation: float32, axes YX or YXC.
        lower: Percentile that becomes 0.
        upper: Percentile that becomes 1.
    """

    def __init__(
        self, array: npt.NDArray[np.generic], feed: Callable[[npt.NDArray[Any]], Floats], lower: float, upper: float
    ) -> None:
        self.shape = (array.shape[0], array.shape[1])
        self._array, self._feed = array, feed
        first = feed(array[:1, :1])
        self.channels = first.shape[2] if first.ndim == 3 else 0
        self._scales = [
            streamed_percentiles(functools.partial(self._bands, at), (lower, upper))
            for at in range(max(1, self.channels))
        ]

    def read(self, box: Box) -> Floats:
        """Return a part, as `normalize` would give it of the whole: float32 in [0, 1], axes YX or YXC."""
        part = self._feed(self._array[box[0] : box[1], box[2] : box[3]])
        release(self._array)
        if not self.channels:
            return scale_to_unit(part, *self._scales[0])
        return np.stack([scale_to_unit(part[..., at], *scale) for at, scale in enumerate(self._scales)], axis=-1)

    def whole(self) -> Floats:
        """Return all of it, on disk if it is large."""
        filled: Floats = zeros(self.shape + ((self.channels,) if self.channels else ()), np.float32)
        rows = max(1, _BAND_PIXELS // self.shape[1])
        for top in range(0, self.shape[0], rows):
            filled[top : top + rows] = self.read((top, min(top + rows, self.shape[0]), 0, self.shape[1]))
            release(filled)
        return filled

    def _bands(self, channel: int) -> Iterator[Floats]:
        rows = max(1, _BAND_PIXELS // self.shape[1])
        for top in range(0, self.shape[0], rows):
            part = self._feed(self._array[top : top + rows])
            yield part[..., channel] if self.channels else part
            release(self._array)
