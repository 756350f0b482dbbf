"""Windows to validate on: few pixels, many items, whole cells."""

from dataclasses import replace

import numpy as np
import pytest
from support.cellsparse_fake.config import resolve

from cellsparse_common.imaging import disk_array
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.training import validation
from cellsparse_trainer.training.validation import EDGE, FEWEST_PIXELS, MOST_ITEMS, allowed_pixels, windows

PLAN = replace(resolve(trainer_pb2.TrainingSettings(), 1).plan, crop_size=64, validate_every=1)


def sample(number, side=600, cells=6, background=None, rim=0):
    """An image of squares at random places, each with a number in the image's brightness."""
    rng = np.random.default_rng(number)
    label = np.full((side, side), -1, np.int32)
    if background is not None:
        label[background] = 0
    for cell in range(1, cells + 1):
        y, x = rng.integers(rim, side - 24 - rim, 2)
        label[y : y + 20, x : x + 24] = cell
    image = (label + 1).astype(np.float32) / 100
    return Sample(name=f"item{number}", image=image, label=label)


def whole_cells(found, item):
    """The cells of an item that a window shows, which must be whole there."""
    names = np.unique(found.label[found.label > 0])
    assert all((found.label == name).sum() == (item.label == name).sum() for name in names)
    return set(names.tolist())


def test_all_cells_of_a_few_images_are_seen_on_a_part_of_their_pixels():
    items = [sample(number) for number in range(2)]
    found = windows(items, PLAN)
    for item in items:
        own = [one for one in found if one.name == item.name]
        seen = set().union(*(whole_cells(one, item) for one in own))
        assert seen == set(np.unique(item.label[item.label > 0]).tolist())
    assert sum(one.label.size for one in found) < 0.3 * sum(item.label.size for item in items)
    assert all(np.allclose(100 * one.image[one.label > 0], one.label[one.label > 0] + 1) for one in found)


def test_small_images_are_taken_whole():
    items = [sample(number, side=200) for number in range(3)]
    assert windows(items, PLAN) == items


def test_pixels_are_bounded_and_items_take_turns():
    items = [sample(number, cells=40) for number in range(40)]
    found = windows(items, PLAN)
    assert len({one.name for one in found}) == 40
    assert sum(one.label.size for one in found) <= allowed_pixels(PLAN) == FEWEST_PIXELS
    many = replace(PLAN, validate_every=4000)
    assert allowed_pixels(many) == int(0.2 * 4000 * 2 * 64 * 64)
    assert len(windows(items, many)) > len(found)
    assert sum(one.label.size for one in windows(items, PLAN, 2 * FEWEST_PIXELS)) <= 2 * FEWEST_PIXELS
    assert len(windows(items, PLAN, 2 * FEWEST_PIXELS)) > len(found)


def test_items_are_read_at_equal_distances_and_not_all():
    read = []

    class Reading(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    windows(Reading(sample(number, side=100, cells=1) for number in range(200)), PLAN)
    assert len(read) == MOST_ITEMS
    assert (read[0], read[-1]) == (0, 199)
    assert set(np.diff(read)) == {3, 4}


def test_the_same_plan_gives_the_same_windows_and_another_seed_others():
    items = [sample(number, cells=30) for number in range(9)]
    first, again, other = (windows(items, replace(PLAN, seed=seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a.label, b.label) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.label, b.label) for a, b in zip(first, other, strict=False))


def test_nothing_is_judged_at_a_border_that_is_not_the_images():
    label = np.zeros((600, 600), np.int32)
    label[300:320, 300:320] = 1
    label[310:330, 330:360] = 2  # partly in the window around the first, which is 64 pixels wide
    (one, *_) = windows([Sample(name="a", image=np.zeros(label.shape, np.float32), label=label)], replace(PLAN, seed=1))
    assert one.label.shape == (80, 80)
    for edge in (one.label[:EDGE], one.label[-EDGE:], one.label[:, :EDGE], one.label[:, -EDGE:]):
        assert (edge == -1).all()


def test_windows_are_the_same_where_labels_are_looked_at_in_parts(monkeypatch):
    def found():
        return windows([sample(3, cells=8, background=np.s_[300:, 400:], rim=150)], PLAN)

    expected = found()
    for module in (disk_array, validation):
        monkeypatch.setattr(module, "BAND_BYTES", 10_000)
    for one, other in zip(found(), expected, strict=True):
        np.testing.assert_array_equal(one.label, other.label)


def test_labelled_background_is_seen_too():
    corner = sample(3, cells=8, background=np.s_[500:, 500:], rim=150)
    assert any((one.label == 0).any() for one in windows([corner], PLAN))
    empty = sample(4, cells=0, background=np.s_[500:, 500:])
    (only,) = windows([empty], PLAN)
    assert (only.label == 0).any()
    assert not (only.label > 0).any()


def test_a_cell_larger_than_crops_has_a_window_of_its_own():
    label = np.full((700, 700), -1, np.int32)
    label[200:500, 150:450] = 2**31 - 1
    for number in range(20):
        label[10:14, 10 + 30 * number : 16 + 30 * number] = number + 1
    item = Sample(name="large", image=np.zeros(label.shape, np.float32), label=label)
    found = windows([item], PLAN)
    assert any((one.label == 2**31 - 1).sum() == 300 * 300 for one in found)


@pytest.mark.parametrize("depth", [None, 8])
def test_stacks_have_windows_of_planes_too(depth):
    label = np.full((30, 256, 256), -1, np.int32)
    label[12:16, 100:120, 100:130] = 1
    item = Sample(name="stack", image=np.zeros(label.shape, np.float32), label=label)
    found = windows([item], replace(PLAN, crop_depth=depth))
    assert (found[0].label == 1).sum() == 4 * 20 * 30
    assert found[0].label.ndim == 3
    assert found[0].label.size < 256 * 256 * 30
