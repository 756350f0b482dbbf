"""Patches of label numbers: checking what clients send, cutting it into tiles, and changing tiles by it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_orchestrator.projects.label_numbers import KEEP, NEW, Numbers, deflate, inflate
from cellsparse_orchestrator.projects.tiling import TILE, Extent, Place, covering
from cellsparse_proto.v1 import project_pb2

MAX_PIXELS = 2**24
"""Most pixels of all patches of an edit."""

Change: TypeAlias = Callable[[Numbers], None]
"""Changes a tile in place."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A rectangle of label numbers within one tile; edges in the tile."""

    place: Place
    top: int
    left: int
    numbers: Numbers

    def window(self, tile: Numbers) -> Numbers:
        """Return the part of a tile that the piece covers."""
        height, width = self.numbers.shape
        return tile[self.top : self.top + height, self.left : self.left + width]

    def patch(self) -> project_pb2.LabelPatch:
        """Return the piece as a patch."""
        height, width = self.numbers.shape
        return project_pb2.LabelPatch(
            x=self.place.x * TILE + self.left,
            y=self.place.y * TILE + self.top,
            plane=self.place.plane,
            width=width,
            height=height,
            data=deflate(self.numbers),
        )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What an edit changed in one tile; KEEP where it changed nothing."""

    before: Piece
    after: Piece


def check_patches(patches: Sequence[project_pb2.LabelPatch], extent: Extent) -> None:
    """Refuse patches that leave the image, or are too many pixels in all.

    Raises:
        InvalidArgument: Names the patch.
    """
    pixels = 0
    for index, patch in enumerate(patches):
        field = f"patches[{index}]"
        inside = patch.x + patch.width <= extent.width and patch.y + patch.height <= extent.height
        if not inside or patch.plane >= extent.planes:
            raise InvalidArgument(
                f"{field} covers x {patch.x} to {patch.x + patch.width}, y {patch.y} to {patch.y + patch.height} of "
                f"plane {patch.plane}; the image ends at x {extent.width}, y {extent.height}, plane "
                f"{extent.planes - 1}.",
                field,
            )
        pixels += patch.width * patch.height
    if pixels > MAX_PIXELS:
        raise InvalidArgument(f"The patches hold {pixels:,} pixels; allowed: {MAX_PIXELS:,} in all.", "patches")


def decode_patches(patches: Sequence[project_pb2.LabelPatch], next_label: int) -> tuple[list[Piece], int]:
    """Return checked patches cut into tiles, with real numbers for new cells, and the number of new cells.

    Args:
        patches: As a client sent them, inside the image.
        next_label: The number of the first new cell.

    Raises:
        InvalidArgument: The data are damaged, or hold a number that no cell has.
    """
    decoded = [
        inflate(patch.data, patch.height, patch.width, f"patches[{index}].data") for index, patch in enumerate(patches)
    ]
    new: set[int] = set()
    for index, numbers in enumerate(decoded):
        found = np.unique(numbers)
        new.update((found[(found >= NEW) & (found != KEEP)].astype(np.int64) - NEW).tolist())
        unknown = found[(found >= next_label) & (found < NEW)]
        if unknown.size:
            raise InvalidArgument(
                f"patches[{index}] holds the label number {unknown[0]}, which no cell has; allowed: 0 to "
                f"{next_label - 1}, 0xffffffff to keep what is there, and 0x80000000 + i for the i-th new cell.",
                f"patches[{index}].data",
            )
    if new and max(new) != len(new) - 1:
        raise InvalidArgument(
            f"The patches hold {len(new)} new cells, but a placeholder 0x80000000 + {max(new)}; number them from 0 "
            "without gaps.",
            "patches",
        )
    if next_label + len(new) >= NEW:
        raise InvalidArgument(f"The image has had {next_label - 2:,} cells; no more numbers are left.", "patches")
    pieces = []
    for patch, numbers in zip(patches, decoded, strict=True):
        placeholders = (numbers >= NEW) & (numbers != KEEP)
        numbers[placeholders] = numbers[placeholders] - NEW + next_label
        pieces += cut(patch, numbers)
    return pieces, len(new)


def cut(patch: project_pb2.LabelPatch, numbers: Numbers) -> list[Piece]:
    """Return the label numbers of a patch as pieces of tiles."""
    pieces = []
    for place in covering(patch.plane, patch.y, patch.x, patch.height, patch.width):
        top, left = max(patch.y, place.y * TILE), max(patch.x, place.x * TILE)
        bottom = min(patch.y + patch.height, (place.y + 1) * TILE)
        right = min(patch.x + patch.width, (place.x + 1) * TILE)
        part = numbers[top - patch.y : bottom - patch.y, left - patch.x : right - patch.x]
        pieces.append(Piece(place=place, top=top - place.y * TILE, left=left - place.x * TILE, numbers=part))
    return pieces


def write_changes(pieces: Iterable[Piece]) -> dict[Place, Change]:
    """Return for each tile the change that writes pieces one after the other, except where they say KEEP."""

    def write(mine: list[Piece]) -> Change:
        def change(tile: Numbers) -> None:
            for piece in mine:
                np.copyto(piece.window(tile), piece.numbers, where=piece.numbers != KEEP)

        return change

    return {place: write(mine) for place, mine in _by_place(pieces).items()}


def replace_changes(pairs: Iterable[tuple[Piece, Piece]]) -> dict[Place, Change]:
    """Return for each tile the change that writes the second pieces where the first ones are what is there."""
    grouped: dict[Place, list[tuple[Piece, Piece]]] = {}
    for there, then in pairs:
        grouped.setdefault(there.place, []).append((there, then))

    def replace(mine: list[tuple[Piece, Piece]]) -> Change:
        def change(tile: Numbers) -> None:
            for there, then in mine:
                window = there.window(tile)
                np.copyto(window, then.numbers, where=(window == there.numbers) & (there.numbers != KEEP))

        return change

    return {place: replace(mine) for place, mine in grouped.items()}


def difference(place: Place, before: Numbers, after: Numbers) -> Difference | None:
    """Return what differs between two states of a tile; None if nothing does."""
    differs: npt.NDArray[np.bool_] = before != after
    rows, columns = differs.any(1).nonzero()[0], differs.any(0).nonzero()[0]
    if not rows.size:
        return None
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))

    def piece(tile: Numbers) -> Piece:
        numbers = np.where(differs[box], tile[box], np.uint32(KEEP))
        return Piece(place=place, top=int(rows[0]), left=int(columns[0]), numbers=numbers)

    return Difference(before=piece(before), after=piece(after))


def pack_pieces(pieces: Iterable[Piece]) -> bytes:
    """Return pieces as bytes for the log of edits."""
    return pack_patches([piece.patch() for piece in pieces])


def pack_patches(patches: Sequence[project_pb2.LabelPatch]) -> bytes:
    """Return patches as bytes for the log of edits."""
    data: bytes = project_pb2.UndoEditResponse(patches=patches).SerializeToString()
    return data


def unpack_pieces(data: bytes) -> list[Piece]:
    """Return the pieces that `pack_pieces` wrote."""
    pieces = []
    for patch in project_pb2.UndoEditResponse.FromString(data).patches:
        pieces += cut(patch, inflate(patch.data, patch.height, patch.width))
    return pieces


def _by_place(pieces: Iterable[Piece]) -> dict[Place, list[Piece]]:
    grouped: dict[Place, list[Piece]] = {}
    for piece in pieces:
        grouped.setdefault(piece.place, []).append(piece)
    return grouped
