"""What was made last stays in memory, up to a bound."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows the memory it takes."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""


T = TypeVar("T", bound=Sized)


class Recent(Generic[T]):
    """The results that were asked for last, by number; the rest is made again when it is asked for.

    Args:
        make: Makes the result of a number: the same one every time.
        most_bytes: Bound of the memory for results; the newest one is kept in any case.
    """

    def __init__(self, make: Callable[[int], T], most_bytes: int) -> None:
        self._make = make
        self._free = most_bytes
        self._kept: OrderedDict[int, T] = OrderedDict()

    def __getitem__(self, number: int) -> T:
        if number not in self._kept:
            self._kept[number] = self._make(number)
            self._free -= self._kept[number].nbytes
            while self._free < 0 and len(self._kept) > 1:
                self._free += self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(number)
        return self._kept[number]
