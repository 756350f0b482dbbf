"""An image as tiles for viewing: levels of half the size by the mean, contrast by percentiles."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cellsparse_orchestrator.projects.tiling import TILE, Extent, Place, covering

Plane: TypeAlias = npt.NDArray[Any]
"""Pixels of one plane and channel, uint8 or uint16, axes YX."""

PERCENTILES = (0.1, 99.9)
_ROWS = 512
"""Rows that are computed at a time, so that memory does not grow with the image."""


@dataclass(frozen=True, kw_only=True)
class PixelTile:
    """A tile of pixels."""

    level: int
    channel: int
    place: Place
    pixels: Plane

    def data(self) -> bytes:
        """Return its pixels compressed: row by row, little endian."""
        little = self.pixels.dtype.newbyteorder("<")
        return zlib.compress(np.ascontiguousarray(self.pixels, little).data, 1)


@dataclass(kw_only=True)
class Pyramid:
    """Makes the tiles of an image.

    Args:
        array: Axes YX, YXC, ZYX or ZYXC.
        stack: Whether the first axis is planes.

    Attributes:
        contrast: After `tiles`: for each channel the two percentiles of its values.
    """

    array: npt.NDArray[np.generic]
    stack: bool
    contrast: list[tuple[float, float]] = field(default_factory=list)

    @property
    def extent(self) -> Extent:
        """Size of the image."""
        shape = self.array.shape
        if self.stack:
            return Extent(planes=shape[0], height=shape[1], width=shape[2])
        return Extent(height=shape[0], width=shape[1])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.array.shape[-1] if self.array.ndim == 3 + self.stack else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the tiles' pixels: other types than uint8 and uint16 are scaled to uint16."""
        return np.dtype(np.uint8 if self.array.dtype == np.uint8 else np.uint16)

    def tiles(self) -> Iterator[PixelTile]:
        """Yield all tiles; the pixels of one plane are in memory at a time."""
        for channel in range(self.channels):
            low, high = self._range(channel)
            counts = np.zeros(np.iinfo(self.dtype).max + 1, np.int64)
            for plane in range(self.extent.planes):
                pixels = self._pixels(plane, channel, low, high)
                for top in range(0, len(pixels), _ROWS):
                    counts += np.bincount(pixels[top : top + _ROWS].ravel(), minlength=len(counts))
                yield from self._levels(pixels, plane, channel)
            self.contrast.append(percentiles(counts))

    def _plane(self, plane: int, channel: int) -> npt.NDArray[Any]:
        array = self.array[plane] if self.stack else self.array
        return array if array.ndim == 2 else array[..., channel]

    def _range(self, channel: int) -> tuple[float, float]:
        if self.array.dtype in (np.uint8, np.uint16):
            return 0.0, 0.0
        planes = [self._plane(plane, channel) for plane in range(self.extent.planes)]
        return min(float(plane.min()) for plane in planes), max(float(plane.max()) for plane in planes)

    def _pixels(self, plane: int, channel: int, low: float, high: float) -> Plane:
        pixels = self._plane(plane, channel)
        if pixels.dtype in (np.uint8, np.uint16):
            return pixels
        scaled = np.zeros(pixels.shape, np.uint16)
        # Halves: the range of float64 itself may be larger than the largest float64.
        half = high / 2 - low / 2
        if half > 0:
            for top in range(0, len(pixels), _ROWS):
                part = (pixels[top : top + _ROWS].astype(np.float64) / 2 - low / 2) / half
                scaled[top : top + _ROWS] = np.rint(part.clip(0, 1) * 65535)
        return scaled

    def _levels(self, pixels: Plane, plane: int, channel: int) -> Iterator[PixelTile]:
        for level in range(self.extent.levels):
            if level:
                pixels = halve(pixels)
            for place in covering(plane, 0, 0, *pixels.shape):
                rows = slice(place.y * TILE, (place.y + 1) * TILE)
                columns = slice(place.x * TILE, (place.x + 1) * TILE)
                yield PixelTile(level=level, channel=channel, place=place, pixels=pixels[rows, columns])


def halve(pixels: Plane) -> Plane:
    """Return an image of half the height and width, rounded up: the mean of each 2 x 2 pixels, rounded."""
    height, width = pixels.shape
    half = np.empty((-(-height // 2), -(-width // 2)), pixels.dtype)
    for top in range(0, height, 2 * _ROWS):
        part = pixels[top : top + 2 * _ROWS].astype(np.uint32)
        part = np.pad(part, ((0, part.shape[0] % 2), (0, width % 2)), mode="edge")
        total = part[::2, ::2] + part[1::2, ::2] + part[::2, 1::2] + part[1::2, 1::2]
        half[top // 2 : top // 2 + len(total)] = (total + 2) // 4
    return half


def percentiles(counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the values to show as black and as white, of the number of pixels of each value; they differ."""
    reached = np.cumsum(counts)
    low, high = (int(np.searchsorted(reached, reached[-1] * share / 100)) for share in PERCENTILES)
    return float(low), float(max(high, low + 1))
