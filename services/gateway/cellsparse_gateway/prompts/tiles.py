"""Windows of images and label layers, put together from the orchestrator's tiles."""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_proto.v1 import project_pb2

SIDE = 512
CACHE_BYTES = 64 * 2**20
Array = npt.NDArray[Any]
Key = tuple[str, int, int, int, int, int]


class TileCache:
    """Tiles of image pixels, which never change. Safe to use from many threads."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Key, Array] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, fetch: Callable[[], Array]) -> Array:
        """Return a tile, fetched if it is not here."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = fetch()
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            while self._bytes > self._limit and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes
        return tile


class Windows:
    """Windows of pixels and of label numbers.

    Args:
        orchestrator: Has the tiles.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._projects = orchestrator.projects
        self._cache = TileCache()

    def pixels(
        self,
        image: "project_pb2.ProjectImage",
        level: int,
        plane: int,
        channels: list[int],
        rows: slice,
        columns: slice,
    ) -> Array:
        """Return a window (YXC) of a level.

        Raises:
            grpc.RpcError: A call failed.
        """
        kind = np.dtype(image.dtype).newbyteorder("<")
        window = np.zeros((rows.stop - rows.start, columns.stop - columns.start, len(channels)), image.dtype)
        for index, channel in enumerate(channels):
            for x, y, there, here in _parts(rows, columns):

                def fetch(place: tuple[int, int] = (x, y), channel: int = channel) -> Array:
                    return self._tile(image.id, level, *place, plane, channel, kind)

                tile = self._cache.get((image.id, level, x, y, plane, channel), fetch)
                window[(*there, index)] = tile[here]
        return window

    def labels(
        self, image_id: str, layer_id: str, level: int, plane: int, rows: slice, columns: slice
    ) -> npt.NDArray[np.uint32]:
        """Return label numbers (YX) of a layer.

        Raises:
            grpc.RpcError: A call failed.
        """
        window = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint32)
        for x, y, there, here in _parts(rows, columns):
            place = {"level": level, "x": x, "y": y, "plane": plane}
            ask = project_pb2.GetLabelTileRequest(image_id=image_id, layer_id=layer_id, place=place)
            tile = self._projects.GetLabelTile(ask, timeout=ASK_SECONDS)
            if tile.data:
                numbers = np.frombuffer(zlib.decompress(tile.data), "<u4").reshape(tile.height, tile.width)
                window[there] = numbers[here]
        return window

    def _tile(self, image_id: str, level: int, x: int, y: int, plane: int, channel: int, kind: np.dtype[Any]) -> Array:
        place = {"level": level, "x": x, "y": y, "plane": plane}
        ask = project_pb2.GetImageTileRequest(image_id=image_id, place=place, channel=channel)
        tile = self._projects.GetImageTile(ask, timeout=ASK_SECONDS)
        return np.frombuffer(zlib.decompress(tile.data), kind).reshape(tile.height, tile.width)


def _parts(rows: slice, columns: slice) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Yield column and row of each tile under a window, its place in the window, and the part of the tile."""
    for y in range(rows.start // SIDE, -(-rows.stop // SIDE)):
        for x in range(columns.start // SIDE, -(-columns.stop // SIDE)):
            top, left = max(rows.start, y * SIDE), max(columns.start, x * SIDE)
            bottom, right = min(rows.stop, (y + 1) * SIDE), min(columns.stop, (x + 1) * SIDE)
            there = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
            here = slice(top - y * SIDE, bottom - y * SIDE), slice(left - x * SIDE, right - x * SIDE)
            yield x, y, there, here
