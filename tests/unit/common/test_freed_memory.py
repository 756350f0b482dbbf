"""Memory that was freed goes back to the system."""

import subprocess
import sys

import pytest

FREES = """
import sys
import psutil
from cellsparse_common.freed_memory import LARGE_BYTES, return_large_blocks

if sys.argv[1] == "returned":
    return_large_blocks()
block = bytearray(8 * LARGE_BYTES)
del block  # from here on glibc would take smaller blocks from the heap
kept, large = [], []
for _ in range(50):
    large.append(bytearray(b"x") * (2 * LARGE_BYTES))
    kept.append(bytes(2**14))  # what stays between them keeps the heap from shrinking
before = psutil.Process().memory_info().rss
del large
print((before - psutil.Process().memory_info().rss) // LARGE_BYTES)
"""


@pytest.mark.parametrize(("how", "least", "most"), [("returned", 90, 110), ("as glibc does", 0, 50)])
def test_large_blocks_go_back_between_small_ones_that_stay(how, least, most):
    found = subprocess.run([sys.executable, "-c", FREES, how], capture_output=True, text=True, check=True)
    assert least <= int(found.stdout) <= most
