"""The decoded label tiles that were used last; their objects never change, so they are never out of date."""

import threading
from collections import OrderedDict

from cellsparse_orchestrator.projects.label_numbers import Numbers

_BYTES = 64 * 2**20


class TileCache:
    """Keeps the tiles used last by the key of their object, up to 64 MiB; thread-safe."""

    def __init__(self, most: int = _BYTES) -> None:
        self._most = most
        self._size = 0
        self._lock = threading.Lock()
        self._tiles: OrderedDict[str, Numbers] = OrderedDict()

    def get(self, key: str) -> Numbers | None:
        """Return a tile that must not be changed; None if it is not kept."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: str, tile: Numbers) -> None:
        """Keep a tile, which must not be changed any more."""
        tile.flags.writeable = False
        with self._lock:
            self._drop(key)
            self._tiles[key] = tile
            self._size += tile.nbytes
            while self._size > self._most:
                self._drop(next(iter(self._tiles)))

    def drop(self, key: str) -> None:
        """Forget a tile."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: str) -> None:
        tile = self._tiles.pop(key, None)
        if tile is not None:
            self._size -= tile.nbytes
