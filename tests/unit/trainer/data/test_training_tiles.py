"""Large training images as tiles: every labelled cell is whole in one of them, and nothing is learned wrongly."""

import copy
from functools import partial

import numpy as np
import pytest

from cellsparse_common import datasets
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data import training_tiles as module
from cellsparse_trainer.data.parts import cell_boxes, cut_part
from cellsparse_trainer.data.samples import Sample, StoredSamples
from cellsparse_trainer.data.training_tiles import TileSamples, is_large, labelled_parts, training_tiles

HUGE = 2_000_000_000


def discs(height, width, radius, number=lambda at: at + 1):
    """Labels with discs on a grid that does not match that of tiles; unlabelled between them."""
    label = np.full((height, width), -1, np.int32)
    y, x = np.mgrid[:height, :width]
    count = 0
    for top in range(radius, height - radius, 3 * radius + 1):
        for left in range(radius, width - radius, 3 * radius + 2):
            label[(y - top) ** 2 + (x - left) ** 2 <= radius**2] = number(count)
            count += 1
    return label


def sample(label):
    return Sample(name="a", image=np.random.default_rng(0).random(label.shape, np.float32), label=label)


@pytest.mark.parametrize("radius", [4, 20])
def test_every_cell_is_whole_in_a_tile_and_no_tile_says_anything_wrong(radius):
    whole = sample(discs(300, 230, radius))
    sizes = np.bincount(whole.label[whole.label > 0])
    seen = set()
    for part in labelled_parts(whole, side=64, least_overlap=8):
        tile = cut_part(whole, part, 1)
        known = tile.label >= 0
        np.testing.assert_array_equal(tile.label[known], whole.label[part][known])
        np.testing.assert_array_equal(tile.image, whole.image[part])
        for cell in np.unique(tile.label[tile.label > 0]):
            assert (tile.label == cell).sum() == sizes[cell], "cells that a tile cuts are not labelled in it"
            seen.add(cell)
    assert seen == set(np.unique(whole.label[whole.label > 0]))


def test_tiles_without_a_label_are_left_out():
    label = np.full((300, 300), -1, np.int32)
    label[270:280, 10:20] = 7
    assert labelled_parts(sample(label), side=64, least_overlap=8) == [(slice(236, 300), slice(0, 64))]


def test_boxes_of_cells_with_huge_numbers():
    label = discs(90, 80, 5, number=lambda at: HUGE - at)
    boxes = cell_boxes(label)
    assert len(boxes) == len(np.unique(label)) - 1
    for number, box in zip(sorted(set(label[label > 0])), boxes, strict=True):
        assert (label[box] == number).sum() == (label == number).sum()


def test_large_items_become_tiles_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_PIXELS", 40_000)
    monkeypatch.setattr(module, "labelled_parts", partial(labelled_parts, side=128, least_overlap=16))
    store = FolderStore(tmp_path)
    items = [put(store, "small", discs(60, 60, 5)), put(store, "large", discs(220, 240, 5))]
    assert [is_large(item) for item in items] == [False, True]
    stored = StoredSamples(store, items, plan())
    tiles = TileSamples(stored, training_tiles(stored, items), cache_bytes=0)
    assert len(tiles) == 1 + 2 * 2
    assert tiles[0].name == "small"
    assert tiles[1].name == "large from row 0, column 0"
    np.testing.assert_array_equal(tiles[2].image, stored[1].image[tiles._tiles[2][1]])
    again = copy.copy(tiles)  # as pickled for another process: with a cache of its own
    np.testing.assert_array_equal(again[3].label, tiles[3].label)


def put(store, name, label):
    image = np.random.default_rng(1).integers(0, 999, label.shape, np.uint16)
    return datasets.put_item(store, name=name, split=common_pb2.SPLIT_TRAIN, image=image, label=label)


def plan():
    return Plan(
        steps=1,
        batch_size=1,
        crop_size=32,
        learning_rate=0.1,
        weight_decay=0.0,
        lower_percentile=1.0,
        upper_percentile=99.0,
        channel=None,
        validate_every=1,
        checkpoint_every=1,
        seed=0,
        device="cpu",
    )
