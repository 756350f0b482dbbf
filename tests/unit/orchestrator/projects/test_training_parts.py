"""What is trained on of a project, and how windows of a large image are joined."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_orchestrator.projects.stitching import stitch, windows
from cellsparse_orchestrator.projects.training_data import LARGEST, MARGIN, SMALLEST, parts, valid_name


def discs(size, count, seed):
    random = np.random.default_rng(seed)
    label = np.zeros((size, size), np.int32)
    ys, xs = np.ogrid[:size, :size]
    for _ in range(count):
        y, x = random.integers(6, size - 6, 2)
        disc = (ys - y) ** 2 + (xs - x) ** 2 <= 25
        if not label[max(y - 7, 0) : y + 8, max(x - 7, 0) : x + 8].any():
            label[disc] = label.max() + 1
    return label


@pytest.mark.parametrize("seed", range(5))
def test_stitched_windows_give_the_cells_of_the_whole(seed):
    true = discs(200, 60, seed)
    whole, known = np.zeros_like(true), 0
    for window in windows(*true.shape, size=70, overlap=20):
        part = true[window.rows, window.columns]
        _, numbers = np.unique(np.append(part.ravel(), 0), return_inverse=True)
        part = numbers[:-1].reshape(part.shape).astype(np.int32)
        numbers = stitch(whole, part, window, known)
        assert len(numbers) == part.max() + 1
        assert (numbers > 0).sum() == part.max()
        known = max(known, int(numbers.max()))
    assert known == true.max()
    assert ((whole > 0) == (true > 0)).all()
    pairs = np.unique(np.stack([whole[true > 0], true[true > 0]]), axis=1)
    assert pairs.shape[1] == true.max()


@given(st.integers(1, 500), st.integers(1, 500))
def test_windows_cover_the_image_and_overlap(height, width):
    seen = np.zeros((height, width), bool)
    for window in windows(height, width, size=100, overlap=20):
        shown = np.zeros(seen[window.rows, window.columns].shape, bool)
        shown[: window.above] = shown[:, : window.before] = True
        assert (seen[window.rows, window.columns] == shown).all()
        seen[window.rows, window.columns] = True
    assert seen.all()


def test_a_small_image_is_taken_whole():
    assert parts(np.full((4096, 4096), -1, np.int32)) == [(slice(0, 4096), slice(0, 4096))]


def test_a_large_image_is_taken_in_parts_around_its_marks():
    label = np.full((4097, 4200), -1, np.int32)
    label[1000:1010, 1000:1030] = 1  # over a tile's edge: one part
    label[4096, 4199] = 0
    first, second = parts(label)
    assert first == (slice(1000 - MARGIN, 1010 + MARGIN), slice(1000 - MARGIN, 1030 + MARGIN))
    assert (second[0].stop, second[1].stop) == (4097, 4200)
    label[:] = 0
    found = parts(label)
    assert sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in found) == label.size
    assert all(rows.stop - rows.start <= LARGEST and columns.stop - columns.start <= LARGEST for rows, columns in found)
    assert SMALLEST <= 2 * MARGIN


@given(st.text(max_size=300))
def test_any_name_becomes_valid(name):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}", valid_name(name, "project", 100))
