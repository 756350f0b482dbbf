"""A least-recently-used cache with a bound in bytes, for whatever takes time to make.

`cachetools.LRUCache` with `getsizeof` could serve, but it refuses a value larger than its bound. Here the newest value
is always kept: a training on one large image would otherwise read it again for every crop.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


T = TypeVar("T", bound=Sized)


class SizedLruCache(Generic[T]):
    """Values by number, made on demand; the least recently used are dropped beyond a bound in bytes.

    Not thread-safe: each training process reads from one thread. A pickled cache takes its values along.

    Args:
        make: Makes the value of a number, the same one every time.
        max_bytes: Bound on the memory of all values; the newest value is kept in any case.
    """

    def __init__(self, make: Callable[[int], T], max_bytes: int) -> None:
        self._make = make
        self._free = max_bytes
        self._kept: OrderedDict[int, T] = OrderedDict()

    def __getitem__(self, number: int) -> T:
        if number not in self._kept:
            self._kept[number] = self._make(number)
            self._free -= self._kept[number].nbytes
            while self._free < 0 and len(self._kept) > 1:
                self._free += self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(number)
        return self._kept[number]
