"""What becomes of memory that a long-lived process with many threads has freed."""

import ctypes
import logging
import os

_LOG = logging.getLogger(__name__)
_M_MMAP_THRESHOLD = -3
"""Number of the option in glibc's `malloc.h`."""
_VARIABLE = "MALLOC_MMAP_THRESHOLD_"
LARGE_BYTES = 2**20


def return_large_blocks() -> None:
    """Give blocks of `LARGE_BYTES` and more back to the system as soon as they are freed.

    By default glibc raises this size, up to 32 MiB, to that of the largest block that was freed. Images then come from
    the heaps of threads, of which there may be eight for each processor, and most of such a heap stays with the process
    when they are gone. The variable MALLOC_MMAP_THRESHOLD_ does the same, and wins. Nothing happens where the C library
    has no `mallopt`.
    """
    if _VARIABLE in os.environ:
        return
    try:
        done = ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    except AttributeError:
        done = 0
    if not done:
        _LOG.info("the C library keeps the memory of large blocks that were freed")
