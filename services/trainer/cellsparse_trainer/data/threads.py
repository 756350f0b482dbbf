"""What is made for every item before a training begins, made on all cores.

Reading images, filters and flows spend their time in compiled code, which lets other threads run.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cellsparse_common.cpus import usable_cpus

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 2
"""Results that each thread makes ahead of what is taken, so that memory holds a few of them only."""
MOST_THREADS = 8


def in_threads(make: Callable[[S], T], inputs: Sequence[S], threads: int | None = None) -> Iterator[T]:
    """Yield what is made of each input, in the order of the inputs.

    Args:
        make: Called in several threads at once. What it raises is raised at its turn, and nothing after it begins.
        inputs: What to make something of.
        threads: Number of threads, from 1; None: one for each CPU, at most `MOST_THREADS`.
    """
    count = min(MOST_THREADS, usable_cpus()) if threads is None else threads
    if count == 1 or len(inputs) < 2:
        yield from map(make, inputs)
        return
    left = iter(inputs)
    with ThreadPoolExecutor(count, thread_name_prefix="items") as pool:
        waiting: deque[Future[T]] = deque(pool.submit(make, one) for one in itertools.islice(left, AHEAD * count))
        try:
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(pool.submit(make, one) for one in itertools.islice(left, 1))
                yield found
        finally:
            for future in waiting:
                future.cancel()
