"""Where tiles lie: 512 x 512 pixels, smaller at the right and lower edge, on levels that each halve the one before."""

from collections.abc import Iterator
from dataclasses import dataclass

from cellsparse_common.errors import OutOfRange

TILE = 512
"""Height and width of a tile, pixels."""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Place of a tile on its level."""

    plane: int
    y: int
    """Row of the tile, from 0."""
    x: int
    """Column of the tile, from 0."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Size of an image."""

    height: int
    width: int
    planes: int = 1

    @property
    def levels(self) -> int:
        """Number of levels: each halves height and width, rounded up, until one tile holds the image."""
        level = 0
        while max(self.at(level)) > TILE:
            level += 1
        return level + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a label image: (height, width), of a stack (planes, height, width)."""
        return (self.height, self.width) if self.planes == 1 else (self.planes, self.height, self.width)

    def at(self, level: int) -> tuple[int, int]:
        """Return height and width of a level."""
        return -(-self.height >> level), -(-self.width >> level)

    def tile_shape(self, level: int, place: Place) -> tuple[int, int]:
        """Return height and width of a tile.

        Raises:
            OutOfRange: There is no such tile; the sentence says what there is.
        """
        if level >= self.levels:
            raise OutOfRange(f"The image has no level {level}; allowed: 0 to {self.levels - 1}.", "place.level")
        if place.plane >= self.planes:
            raise OutOfRange(f"The image has no plane {place.plane}; allowed: 0 to {self.planes - 1}.", "place.plane")
        height, width = self.at(level)
        rows, columns = -(-height // TILE), -(-width // TILE)
        if place.y >= rows or place.x >= columns:
            raise OutOfRange(
                f"Level {level} has no tile x={place.x}, y={place.y}; allowed: x from 0 to {columns - 1}, y from 0 to "
                f"{rows - 1}.",
                "place",
            )
        return min(TILE, height - place.y * TILE), min(TILE, width - place.x * TILE)

    def places(self, level: int = 0) -> Iterator[Place]:
        """Yield the places of all tiles of a level, plane by plane and row by row."""
        height, width = self.at(level)
        for plane in range(self.planes):
            yield from covering(plane, 0, 0, height, width)


def covering(plane: int, top: int, left: int, height: int, width: int) -> Iterator[Place]:
    """Yield the places of the tiles that a rectangle touches, row by row."""
    for y in range(top // TILE, -(-(top + height) // TILE)):
        for x in range(left // TILE, -(-(left + width) // TILE)):
            yield Place(plane=plane, y=y, x=x)
