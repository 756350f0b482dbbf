from itertools import pairwise

import numpy as np
import pytest

from cellsparse_gateway.prompts.arrays import prompt_array, segment_all
from cellsparse_gateway.prompts.types import best

DIAMETER = 20.0


def blobs(side: int = 160, *, seed: int = 0, contrast: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Return round cells (float image, label image) on a noisy background, some of which touch."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    label = np.zeros((side, side), np.int32)
    image = rng.normal(20, 3, label.shape)
    places = [(40, 40), (40, 59), (110, 40), (100, 110), (118, 116), (30, 120)]
    for number, (cy, cx) in enumerate(places, start=1):
        a, b = rng.uniform(8.5, 11, 2)
        cell = (((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1) & (label == 0)
        label[cell] = number
        image[cell] += contrast * rng.uniform(0.7, 1.2) * (1 - 0.3 * np.hypot(y - cy, x - cx)[cell] / 11)
    return image, label


def whole(proposal, shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    rows, columns = proposal.mask.shape
    mask[proposal.y : proposal.y + rows, proposal.x : proposal.x + columns] = proposal.mask
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def centre(label: np.ndarray, number: int) -> tuple[float, float]:
    rows, columns = np.nonzero(label == number)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_a_click_finds_its_cell_although_neighbours_touch(number):
    image, label = blobs()
    x, y = centre(label, number)
    found = prompt_array(image, [(x, y, True)], diameter=DIAMETER)
    assert iou(whole(found[best(found)], label.shape), label == number) > 0.75


@pytest.mark.parametrize("seed", range(4))
def test_proposals_hold_the_click_and_ascend_around_the_first_shown(seed):
    image, label = blobs(seed=seed)
    x, y = centre(label, 1 + seed)
    found = prompt_array(image, [(x, y, True)], diameter=DIAMETER)
    masks = [whole(proposal, label.shape) for proposal in found]
    assert 1 < len(found) <= 7
    assert all(mask[int(y), int(x)] for mask in masks)
    assert all(a.sum() <= b.sum() for a, b in pairwise(masks))
    assert [proposal.level for proposal in found] == [index - best(found) for index in range(len(found))]
    assert all(0 < proposal.quality <= 1 for proposal in found)
    assert found[best(found)].quality == max(proposal.quality for proposal in found)
    for proposal in found:
        assert proposal.mask.any(0)[[0, -1]].all()
        assert proposal.mask.any(1)[[0, -1]].all()


def test_dark_cells_are_found_as_bright_ones():
    image, label = blobs()
    x, y = centre(label, 3)
    found = prompt_array(255 - image, [(x, y, True)], diameter=DIAMETER)
    assert iou(whole(found[best(found)], label.shape), label == 3) > 0.75


def test_stained_cells_are_found_in_the_channel_that_shows_them():
    image, label = blobs()
    grey = np.clip(image, 0, 255)
    colour = np.stack([230 - grey, np.full_like(grey, 180), np.full_like(grey, 190)], axis=2).astype(np.uint8)
    x, y = centre(label, 6)
    found = prompt_array(colour, [(x, y, True)], diameter=DIAMETER)
    assert iou(whole(found[best(found)], label.shape), label == 6) > 0.75


def test_bit_depth_and_colour_do_not_matter():
    image, label = blobs()
    eight = np.clip(image, 0, 255).astype(np.uint8)
    x, y = centre(label, 4)
    click = [(x, y, True)]
    expected = prompt_array(eight, click, diameter=DIAMETER)
    for other in (
        eight.astype(np.uint16) * 256,
        eight / 255.0,
        np.repeat(eight[..., None], 3, axis=2),
        eight[..., None],
        eight.astype(np.int32) - 1000,
    ):
        found = prompt_array(other, click, diameter=DIAMETER)
        assert iou(whole(found[best(found)], label.shape), whole(expected[best(expected)], label.shape)) > 0.95


def test_negative_points_are_never_in_a_mask():
    image, label = blobs()
    click, other = centre(label, 1), centre(label, 2)
    for found in (
        prompt_array(image, [(*click, True), (*other, False)], diameter=DIAMETER),
        prompt_array(image, [(*click, True), (click[0] + 4, click[1], False)], diameter=DIAMETER),
    ):
        assert found[0].mask.any()
    masks = [whole(p, label.shape) for p in prompt_array(image, [(*click, True), (*other, False)], diameter=60.0)]
    assert not any(mask[int(other[1]), int(other[0])] for mask in masks)
    assert all(mask[int(click[1]), int(click[0])] for mask in masks)


def test_a_second_click_may_join_two_parts():
    image, label = blobs()
    clicks = [(*centre(label, 1), True), (*centre(label, 2), True)]
    found = prompt_array(image, clicks, diameter=DIAMETER)
    mask = whole(found[best(found)], label.shape)
    assert mask[int(clicks[0][1]), int(clicks[0][0])]
    assert mask[int(clicks[1][1]), int(clicks[1][0])]


def test_a_scribble_is_inside_the_mask_shown_first():
    image, label = blobs()
    x, y = centre(label, 3)
    line = [(x - 5, y), (x + 5, y)]
    found = prompt_array(image, scribble=line, diameter=DIAMETER)
    mask = whole(found[best(found)], label.shape)
    assert mask[int(y), int(x - 5) : int(x + 5)].all()
    assert iou(mask, label == 3) > 0.7


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_box_holds_every_mask_and_its_cell_is_found(number):
    image, label = blobs()
    rows, columns = np.nonzero(label == number)
    box = (columns.min() - 1.0, rows.min() - 1.0, columns.max() + 2.0, rows.max() + 2.0)
    found = prompt_array(image, box=box)
    masks = [whole(proposal, label.shape) for proposal in found]
    outside = np.ones(label.shape, bool)
    outside[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = False
    assert not any((mask & outside).any() for mask in masks)
    assert iou(masks[best(found)], label == number) > 0.75


def test_a_box_on_nothing_gives_something_inside_it():
    found = prompt_array(np.zeros((50, 60), np.uint8), box=(10, 10, 30, 40))
    masks = [whole(proposal, (50, 60)) for proposal in found]
    assert all(not mask.any() or mask[10:40, 10:30].sum() == mask.sum() for mask in masks)


@pytest.mark.parametrize("place", [(0.5, 0.5), (159.5, 0.5), (0.5, 159.5), (159.5, 159.5)])
def test_cells_at_the_windows_corners(place):
    image, label = blobs(seed=2)
    y, x = np.mgrid[:160, :160] + 0.5
    cell = np.hypot(y - place[1], x - place[0]) < 12
    image[cell] += 90
    found = prompt_array(image, [(*place, True)], diameter=DIAMETER)
    assert whole(found[best(found)], label.shape)[int(place[1]), int(place[0])]
    assert iou(whole(found[best(found)], label.shape), cell) > 0.5


@pytest.mark.parametrize(
    "image",
    [
        np.full((40, 40), 7, np.uint8),
        np.zeros((40, 40), np.float32),
        np.full((40, 40), np.nan),
        np.zeros((1, 1), np.uint16),
        np.zeros((40, 40, 3), np.uint8),
        np.zeros((1, 40), np.uint8),
    ],
)
def test_nothing_is_found_where_there_is_nothing(image):
    found = prompt_array(image, [(0.5, 0.5, True)])
    assert len(found) == 1
    assert not found[0].mask.any()
    assert found[0].quality == 0
    assert segment_all(image).max() == 0


def test_values_that_are_not_finite_are_background():
    image, label = blobs()
    image[80:83] = np.nan
    image[0, 0] = np.inf
    x, y = centre(label, 3)
    found = prompt_array(image, [(x, y, True)], diameter=DIAMETER)
    assert iou(whole(found[best(found)], label.shape), label == 3) > 0.75


@pytest.mark.parametrize("points", [[], [(5.0, 5.0, False)], [(-3.0, 5.0, True)], [(5.0, 500.0, True)]])
def test_a_prompt_that_shows_no_pixel_finds_nothing(points):
    found = prompt_array(blobs()[0], points)
    assert len(found) == 1
    assert not found[0].mask.any()


def test_a_large_cell_is_found_in_a_smaller_copy():
    y, x = np.mgrid[:400, :400]
    cell = ((y - 200) / 70) ** 2 + ((x - 190) / 60) ** 2 <= 1
    image = np.random.default_rng(0).normal(20, 5, cell.shape) + 80 * cell
    found = prompt_array(image, [(170.0, 220.0, True)], diameter=130.0)
    assert iou(whole(found[best(found)], cell.shape), cell) > 0.9


def test_one_pixel_and_random_images_do_not_fail():
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (2, 3), (7, 1), (1, 9), (5, 5, 2), (3, 40)]:
        image = rng.integers(0, 255, shape).astype(np.uint8)
        for proposal in prompt_array(image, [(0.5, 0.5, True)]):
            assert not proposal.mask.size or proposal.mask.any()
        assert segment_all(image).shape == shape[:2]


@pytest.mark.parametrize(("image", "words"), [(np.zeros((0, 5)), "0, 5"), (np.zeros(5), "axes YX or YXC")])
def test_other_arrays_are_refused(image, words):
    with pytest.raises(ValueError, match=words):
        prompt_array(image, [(0, 0, True)])


def test_coordinates_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        prompt_array(blobs()[0], [(np.nan, 0, True)])


def test_all_cells_of_an_image():
    image, label = blobs()
    for each in (image, 255 - image):
        found = segment_all(each)
        assert found.dtype == np.int32
        assert found.max() == 6
        for number in range(1, 7):
            inside = np.bincount(found[label == number]).argmax()
            assert iou(found == inside, label == number) > 0.6
