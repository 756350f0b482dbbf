"""Label tiles in store and database: reading them, coarser levels, and whole planes.

A tile of the full resolution is an object that never changes; its row names the object that holds now. Coarser tiles
are made when they are asked for, and kept as objects named by the newest revision of what they show.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
from sqlalchemy import select

from cellsparse_common.errors import CellsparseError, NotFound, Unavailable
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import LabelTileRow, LayerRow, ProjectImageRow
from cellsparse_orchestrator.projects.label_numbers import Numbers, deflate, inflate
from cellsparse_orchestrator.projects.rows import extent_of, find_image, find_layer
from cellsparse_orchestrator.projects.tile_cache import TileCache
from cellsparse_orchestrator.projects.tiling import TILE, Extent, Place
from cellsparse_proto.v1 import project_pb2

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 8
_STORED = 2
"""Every second coarser level is kept in the store; the others are quickly made of the level below."""
_AT_ONCE = 8
_BATCH = 64
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class TileRef:
    """What a row says about a tile of the full resolution."""

    revision: int
    object: str
    """Name of its object; empty if all is 0."""


@dataclass(frozen=True, kw_only=True)
class LabelImage:
    """The annotation of an image, or a layer, at one moment."""

    project_id: str
    image_id: str
    layer_id: str
    """Empty for the annotation."""
    extent: Extent
    revision: int
    tiles: Mapping[Place, TileRef]
    """The tiles that have a row, of those that were asked for."""

    @cached_property
    def _shown(self) -> dict[tuple[int, int, int, int], tuple[int, bool]]:
        """By level, plane, row and column: the newest revision that a tile shows, and whether it shows an object."""
        found: dict[tuple[int, int, int, int], tuple[int, bool]] = {}
        for place, ref in self.tiles.items():
            for level in range(self.extent.levels):
                at = level, place.plane, place.y >> level, place.x >> level
                revision, there = found.get(at, (0, False))
                found[at] = max(revision, ref.revision), there or bool(ref.object)
        return found

    def shown(self, level: int, place: Place) -> tuple[int, bool]:
        """Return the newest revision that a tile of any level shows (0 for none), and whether it is not all 0."""
        return self._shown.get((level, place.plane, place.y, place.x), (0, False))

    def key(self, name: str) -> str:
        """Return the key of a tile by the name of its object."""
        return keys.label_tile(self.project_id, self.image_id, self.layer_id, name)


class LabelTiles:
    """Reads label tiles.

    Args:
        database: Holds the rows.
        store: Holds the objects.
    """

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store
        self.cache = TileCache()

    def get(self, request: project_pb2.GetLabelTileRequest) -> project_pb2.GetLabelTileResponse:
        """Return a tile of any level.

        Raises:
            NotFound: There is no such image or layer.
            OutOfRange: There is no such place.
        """
        level = request.place.level
        place = Place(plane=request.place.plane, y=request.place.y, x=request.place.x)

        def read() -> project_pb2.GetLabelTileResponse:
            image = self.open(request.image_id, request.layer_id, level=level, place=place)
            height, width = image.extent.tile_shape(level, place)
            data, revision = self._data(image, level, place)
            if image.layer_id:
                revision = image.revision
            return project_pb2.GetLabelTileResponse(data=data, height=height, width=width, revision=revision)

        return self.retry(read)

    def open(self, image_id: str, layer_id: str, *, level: int | None = None, place: Place | None = None) -> LabelImage:
        """Return what the database says now.

        Args:
            image_id: The image.
            layer_id: The layer; empty for the annotation.
            level: With `place`: only what the tile at this place of this level shows; raises OutOfRange for a place
                outside the image.
            place: See `level`.
        """
        with self._database.read() as session:
            row = find_image(session, image_id)
            layer = find_layer(session, layer_id, image_id) if layer_id else None
            query = select(
                LabelTileRow.plane, LabelTileRow.y, LabelTileRow.x, LabelTileRow.revision, LabelTileRow.object
            )
            query = query.where(LabelTileRow.image_id == image_id, LabelTileRow.layer_id == layer_id)
            if level is not None and place is not None:
                extent_of(row).tile_shape(level, place)
                query = query.where(
                    LabelTileRow.plane == place.plane,
                    LabelTileRow.y.between(place.y << level, ((place.y + 1) << level) - 1),
                    LabelTileRow.x.between(place.x << level, ((place.x + 1) << level) - 1),
                )
            tiles = {
                Place(plane=plane, y=y, x=x): TileRef(revision=revision, object=name)
                for plane, y, x, revision, name in session.execute(query)
            }
            return label_image(row, layer, tiles)

    def retry(self, read: Callable[[], Answer]) -> Answer:
        """Call a function again if an edit removed a tile between the function's look at its row and at the object."""
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(_Vanished):
                return read()
        return read()

    def read(self, image: LabelImage, name: str, height: int, width: int) -> Numbers:
        """Return a tile of the full resolution by the name of its object; it must not be changed."""
        key = image.key(name)
        tile = self.cache.get(key)
        if tile is None:
            tile = inflate(self._fetch(key), height, width)
            self.cache.put(key, tile)
        return tile

    def tile(self, image: LabelImage, place: Place) -> Numbers:
        """Return a tile of the full resolution; it must not be changed."""
        shape = image.extent.tile_shape(0, place)
        ref = image.tiles.get(place)
        return self.read(image, ref.object, *shape) if ref is not None and ref.object else np.zeros(shape, np.uint32)

    def _data(self, image: LabelImage, level: int, place: Place) -> tuple[bytes, int]:
        """Return a tile's compressed label numbers (empty if all are 0) and its revision."""
        if level == 0:
            ref = image.tiles.get(place)
            if ref is None:
                return b"", 0
            return (self._fetch(image.key(ref.object)) if ref.object else b""), ref.revision
        revision, _ = image.shown(level, place)
        tile = self._coarse(image, level, place)
        return (deflate(tile) if tile is not None and tile.any() else b""), revision

    def _coarse(self, image: LabelImage, level: int, place: Place) -> Numbers | None:
        """Return a tile of any level, every second pixel of the level below; None if all is 0."""
        if level == 0:
            ref = image.tiles.get(place)
            if ref is None or not ref.object:
                return None
            return self.read(image, ref.object, *image.extent.tile_shape(0, place))
        revision, there = image.shown(level, place)
        if not there:
            return None
        height, width = image.extent.tile_shape(level, place)
        prefix = keys.coarse_label_tiles(
            image.project_id, image.image_id, image.layer_id, level=level, plane=place.plane, x=place.x, y=place.y
        )
        key = f"{prefix}{revision}"
        kept = self.cache.get(key)
        if kept is not None:
            return kept
        stored = level % _STORED == 0
        if stored:
            with contextlib.suppress(NotFound):
                kept = inflate(self._store.get(key), height, width)
                self.cache.put(key, kept)
                return kept
        tile = self._combine(image, level, place, height, width)
        self.cache.put(key, tile)
        if stored:
            self._keep(prefix, key, tile)
        return tile

    def _combine(self, image: LabelImage, level: int, place: Place, height: int, width: int) -> Numbers:
        tile = np.zeros((height, width), np.uint32)
        below_height, below_width = image.extent.at(level - 1)
        for down in (0, 1):
            for across in (0, 1):
                child = Place(plane=place.plane, y=2 * place.y + down, x=2 * place.x + across)
                if child.y * TILE >= below_height or child.x * TILE >= below_width:
                    continue
                pixels = self._coarse(image, level - 1, child)
                if pixels is not None:
                    part = pixels[::2, ::2]
                    top, left = down * TILE // 2, across * TILE // 2
                    tile[top : top + part.shape[0], left : left + part.shape[1]] = part
        return tile

    def _keep(self, prefix: str, key: str, tile: Numbers) -> None:
        """Keep a coarse tile in place of older ones; if that fails it is made again next time."""
        try:
            older = [found for found in self._store.list(prefix) if found != key]
            self._store.put(key, deflate(tile))
            for found in older:
                self._store.delete(found)
                self.cache.drop(found)
        except CellsparseError as error:
            _LOG.warning("a coarse label tile was not kept: %s", error.message)

    def _fetch(self, key: str) -> bytes:
        try:
            return self._store.get(key)
        except NotFound as error:
            raise _Vanished(f"{error.message} It was replaced meanwhile; try again.") from error


class _Vanished(Unavailable):
    """An edit has removed a tile between our look at its row and at its object."""


def label_image(row: ProjectImageRow, layer: LayerRow | None, tiles: Mapping[Place, TileRef]) -> LabelImage:
    """Return the label image of rows."""
    return LabelImage(
        project_id=row.project_id,
        image_id=row.id,
        layer_id="" if layer is None else layer.id,
        extent=extent_of(row),
        revision=row.revision if layer is None else layer.revision,
        tiles=tiles,
    )


def put_all(store: ObjectStore, objects: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
    """Store many objects, several at a time.

    Args:
        store: Where.
        objects: Keys, and functions that make the bytes; only some are taken ahead.
    """
    waiting = iter(objects)
    with ThreadPoolExecutor(_AT_ONCE, "tiles") as pool:
        while batch := list(islice(waiting, _BATCH)):
            list(pool.map(lambda entry: store.put(entry[0], entry[1]()), batch))


def delete_quietly(store: ObjectStore, found: Iterable[str]) -> None:
    """Delete objects that nothing refers to any more; what cannot be deleted takes room and harms nobody."""
    try:
        for key in found:
            store.delete(key)
    except CellsparseError as error:
        _LOG.warning("objects that nothing needs any more stay in the store: %s", error.message)
