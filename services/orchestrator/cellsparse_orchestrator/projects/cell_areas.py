"""The area of every cell of the annotations that were edited last, so that an edit need not read all tiles' tables."""

import threading
from collections import OrderedDict
from collections.abc import Mapping

_MOST = 64


class CellAreas:
    """Keeps areas by image and revision, for the 64 images used last; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[int, Mapping[int, int]]] = OrderedDict()

    def get(self, image_id: str, revision: int) -> Mapping[int, int] | None:
        """Return the area of each cell at a revision; None if it is not kept."""
        with self._lock:
            kept = self._kept.get(image_id)
            if kept is None or kept[0] != revision:
                return None
            self._kept.move_to_end(image_id)
            return kept[1]

    def put(self, image_id: str, revision: int, areas: Mapping[int, int]) -> None:
        """Keep the area of each cell at a revision."""
        with self._lock:
            self._kept[image_id] = revision, areas
            self._kept.move_to_end(image_id)
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
