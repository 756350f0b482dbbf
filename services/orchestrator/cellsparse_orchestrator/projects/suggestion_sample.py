"""Which images, and which parts of large ones, are looked at for suggestions: pure functions of a seed."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellsparse_orchestrator.projects.tiling import Extent
from cellsparse_proto.v1 import dataset_pb2

WINDOW = 2048
"""Largest height and width of the part of an image that is looked at, pixels."""
PLANES = 3
"""Most planes of a stack that are looked at."""
MOST_PIXELS = 2**25
"""Most pixels that are looked at in one call, of all images together."""
MOST_PREDICTED = 2**23
"""Most of them with a model, which predicts each five times."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image that can be looked at."""

    id: str
    sha256: str
    extent: Extent
    cells: int
    """Annotated cells."""
    labelled: bool
    """Whether any pixel is annotated."""
    item: dataset_pb2.DatasetItem | None = None
    """The item of a dataset; None: it is an image of a project."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of an image that is looked at."""

    source: Source
    rows: slice
    columns: slice
    plane: int | None = None
    """Its plane, where the image is a stack."""
    only_known: bool = False
    """Whether only its annotated cells count."""

    @property
    def name(self) -> str:
        """Name, unique among all parts of a call."""
        return self.source.id if self.plane is None else f"{self.source.id}/{self.plane}"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def sample(sources: Sequence[Source], *, most: int, pixels: int, window: int, seed: int) -> list[Part]:
    """Draw the images to look at, in their order.

    Args:
        sources: All images of the project.
        most: Most images.
        pixels: Most pixels of all together; one image is looked at in any case.
        window: Largest height and width of a part.
        seed: Decides the draw and the parts.
    """
    order = np.random.default_rng(seed).permutation(len(sources))[:most]
    return _fitting((sources[index] for index in order), pixels, window, seed)


def known_parts(
    sources: Sequence[Source], drawn: Sequence[Part], *, most: int, pixels: int, window: int, seed: int
) -> list[Part]:
    """Draw further images with annotated cells: what is known of them counts, too."""
    taken = {part.source.id for part in drawn}
    rest = [source for source in sources if source.cells and source.id not in taken]
    parts = sample(rest, most=most, pixels=pixels, window=window, seed=seed)
    return [replace(part, only_known=True) for part in parts]


def _fitting(sources: Iterable[Source], pixels: int, window: int, seed: int) -> list[Part]:
    found: list[Part] = []
    left = pixels
    for source in sources:
        rows, columns = (
            _range(size, window, seed, f"{source.id} {axis}")
            for axis, size in (("y", source.extent.height), ("x", source.extent.width))
        )
        size = (rows.stop - rows.start) * (columns.stop - columns.start)
        for plane in _planes(source, seed):
            if found and size > left:
                return _in_order(found)
            found.append(Part(source=source, rows=rows, columns=columns, plane=plane))
            left -= size
    return _in_order(found)


def _in_order(parts: Sequence[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: (part.source.id, part.plane or 0))


def _planes(source: Source, seed: int) -> Sequence[int | None]:
    """Return the planes of a stack that are looked at: one of each of so many equal ranges, as neighbours are alike."""
    planes = source.extent.planes
    if planes == 1:
        return (None,)
    ends = np.linspace(0, planes, min(PLANES, planes) + 1).round().astype(int)
    rng = np.random.default_rng([seed, _key(f"{source.id} z")])
    return [int(rng.integers(first, last)) for first, last in itertools.pairwise(ends)]


def _range(size: int, window: int, seed: int, name: str) -> slice:
    """Return a range of at most `window` pixels, drawn by the seed and the image's name."""
    if size <= window:
        return slice(0, size)
    begin = int(np.random.default_rng([seed, _key(name)]).integers(size - window + 1))
    return slice(begin, begin + window)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
