"""All calls of a process together decode a bounded number of bytes."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import Busy, InvalidArgument
from cellsparse_common.imaging import decoding_budget
from cellsparse_common.imaging.decoding_budget import SMALL_BYTES, DecodingBudget
from cellsparse_common.imaging.images import decode_image, encode_tiff

SIDE = 2 * 2**10
SIZE = SIDE * SIDE
LARGE = encode_tiff(np.zeros((SIDE, SIDE), np.uint8))


@pytest.fixture
def budget(monkeypatch):
    own = DecodingBudget(2 * SIZE, wait_seconds=0.2)
    monkeypatch.setattr(decoding_budget, "BUDGET", own)
    return own


def decode(data=LARGE):
    return decode_image(data, max_pixels=2**24)


def test_an_image_counts_from_before_it_is_decoded_until_it_is_gone(budget):
    assert SIZE >= SMALL_BYTES
    kept = [decode(), decode().array[5:9, 3:7]]
    assert budget.taken == 2 * SIZE
    with pytest.raises(Busy, match=r"hold 8,388,608 of the 8,388,608 .* \(CELLSPARSE_MAX_DECODED_MIB\)"):
        decode()
    assert budget.taken == 2 * SIZE
    assert decode(encode_tiff(np.zeros((9, 9), np.uint8))).array.shape == (9, 9)
    kept.pop()  # a part keeps the whole
    gc.collect()
    assert budget.taken == SIZE
    kept.append(decode())
    kept.clear()
    gc.collect()
    assert budget.taken == 0


def test_an_image_waits_for_others(budget):
    budget._wait_seconds = PATIENCE
    kept = [decode(), decode()]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(lambda: decode().array.shape)
        kept.clear()
        gc.collect()
        assert waiting.result(PATIENCE) == (SIDE, SIDE)
    until(lambda: gc.collect() >= 0 and budget.taken == 0)


def test_what_fails_counts_no_more(budget):
    with pytest.raises(InvalidArgument):
        decode(LARGE[:-100])
    gc.collect()
    assert budget.taken == 0


def test_an_image_larger_than_all_waits_until_it_is_alone(budget):
    budget.set_limit(SIZE // 2)
    alone = decode()
    assert budget.taken == SIZE // 2
    with pytest.raises(Busy):
        decode()
    del alone
    budget.set_limit(None)
    assert decode().array.shape == (SIDE, SIDE)
