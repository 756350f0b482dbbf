"""A least-recently-used cache with a bound in bytes, for whatever takes time to make.

`cachetools.LRUCache` with `getsizeof` could serve, but it refuses a value larger than its bound. Here the newest value
is always kept: a training on one large image would otherwise read it again for every crop.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from cellsparse_trainer.data.threads import in_threads


class Sized(Protocol):
    """Something that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


T = TypeVar("T", bound=Sized)


class SizedLruCache(Generic[T]):
    """Values by number, made on demand; the least recently used are dropped beyond a bound in bytes.

    Several threads may read; two that miss the same number at once both make it. A pickled cache takes its values
    along.

    Args:
        make: Makes the value of a number, the same one every time.
        max_bytes: Bound on the memory of all values; the newest value is kept in any case.
    """

    def __init__(self, make: Callable[[int], T], max_bytes: int) -> None:
        self._make = make
        self._free = max_bytes
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the lock, which cannot travel."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> T:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        made = self._make(number)
        with self._lock:
            if number not in self._kept:
                self._kept[number] = made
                self._free -= made.nbytes
                while self._free < 0 and len(self._kept) > 1:
                    self._free += self._kept.popitem(last=False)[1].nbytes
            return self._kept[number]

    def each(self, numbers: Sequence[int], threads: int | None = None) -> Iterator[T]:
        """Yield the values of some numbers in their order; those that are missing are made in threads.

        Args:
            numbers: Which values.
            threads: Number of threads, from 1; None: as many as there are cores.
        """
        return in_threads(self.__getitem__, numbers, threads)
