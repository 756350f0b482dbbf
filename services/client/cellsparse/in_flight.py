"""Several calls at the same time, whose results come in the order of what was asked."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


def in_order(work: Callable[[A], R], inputs: Iterable[A], parallel: int) -> Iterator[R]:
    """Yield `work(input)` of each input, in their order.

    Args:
        work: Called in several threads.
        inputs: Read only so far ahead as there are calls.
        parallel: Most calls at the same time, from 1; with 1, each is made when its result is asked for.
    """
    if parallel == 1:
        yield from map(work, inputs)
        return
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="in-flight")
    waiting: deque[Future[R]] = deque()
    try:
        for each in inputs:
            waiting.append(pool.submit(work, each))
            if len(waiting) == parallel:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # whoever stops early does not wait for calls that run
