import dataclasses

import numpy as np
import pytest
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose.data import Sampler, _likely
from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.data.background import LIKELY
from cellsparse_trainer.data.samples import Sample

RECIPES = ["cell", "image"]


@pytest.mark.parametrize("sampling", RECIPES)
@pytest.mark.parametrize("shape", [(60, 70), (60, 600), (41, 59)])
def test_every_crop_has_a_labelled_pixel(sampling: str, shape: tuple[int, int]) -> None:
    sampler = Sampler([disc_sample(shape)], small_config(sampling=sampling))
    for step in range(40):
        assert (sampler.batch(step).label >= 0).any(axis=(1, 2)).all()


@pytest.mark.parametrize("sampling", RECIPES)
def test_a_single_labelled_pixel_in_a_large_image_is_never_missed(sampling: str) -> None:
    label = np.full((500, 500), -1, np.int32)
    label[311, 77] = 1
    sample = Sample(name="one", image=np.zeros((500, 500), np.float32), label=label)
    sampler = Sampler([sample], small_config(sampling=sampling))
    for step in range(20):
        assert (sampler.batch(step).label == 1).any(axis=(1, 2)).all()


@pytest.mark.parametrize("sampling", RECIPES)
def test_an_image_smaller_than_the_crop_is_padded_with_unlabelled_pixels(sampling: str) -> None:
    label = np.ones((7, 9), np.int32)
    sample = Sample(name="tiny", image=np.ones((7, 9), np.float32), label=label)
    batch = Sampler([sample], small_config(sampling=sampling)).batch(0)
    assert batch.image.shape[2:] == (32, 32)
    assert (batch.label == -1).any()
    assert (batch.label == 1).any()
    assert not (batch.label == 0).any()


@pytest.mark.parametrize("sampling", RECIPES)
def test_a_batch_depends_on_seed_and_step_only(sampling: str) -> None:
    config = small_config(sampling=sampling)
    first, second = Sampler([disc_sample()], config), Sampler([disc_sample()], config)
    for step in (0, 1, 2):
        first.batch(step)
    np.testing.assert_array_equal(first.batch(7).image, second.batch(7).image)
    np.testing.assert_array_equal(first.batch(7).flow, second.batch(7).flow)
    assert (first.batch(7).image != first.batch(8).image).any()
    other = dataclasses.replace(config, plan=dataclasses.replace(config.plan, seed=6))
    assert (Sampler([disc_sample()], other).batch(7).image != first.batch(7).image).any()


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(3)  # noqa: NPY002 - the global generator is what this is about
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    Sampler([disc_sample()], small_config()).batch(0)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_an_epoch_shows_every_usable_image_once_and_ends_with_a_smaller_batch() -> None:
    unlabelled = Sample(name="none", image=np.zeros((40, 40), np.float32), label=np.full((40, 40), -1, np.int32))
    sampler = Sampler([disc_sample(), unlabelled, disc_sample(), disc_sample()], small_config(sampling="image"))
    assert sampler.steps_per_epoch == 2
    assert [len(sampler.batch(step).label) for step in range(4)] == [2, 1, 2, 1]


def test_cells_come_to_the_mean_diameter() -> None:
    sampler = Sampler([disc_sample(background=False)], small_config(scale_range=0.0, mean_diameter=24.0))
    areas = [(sampler.batch(step).label > 0).sum(axis=(1, 2)).max() for step in range(40)]
    assert np.median(np.sqrt(areas)) == pytest.approx(24 * np.sqrt(np.pi) / 2, rel=0.2)


def test_images_without_a_labelled_cell_cannot_be_trained_on() -> None:
    sample = Sample(name="bg", image=np.zeros((40, 40), np.float32), label=np.zeros((40, 40), np.int32))
    with pytest.raises(InvalidArgument, match="None of the 2 training images has a labelled cell"):
        Sampler([sample, sample], small_config())


def test_an_image_without_a_cell_is_a_good_example() -> None:
    empty = Sample(name="empty", image=np.zeros((48, 56), np.float32), label=np.zeros((48, 56), np.int32))
    for sampling in ("cell", "image"):
        sampler = Sampler([empty, disc_sample(), empty], small_config(sampling=sampling))
        assert sampler.diameter == Sampler([disc_sample()], small_config()).diameter
        batches = [sampler.batch(step) for step in range(8)]
        assert all(np.isfinite(batch.image).all() and np.isfinite(batch.flow).all() for batch in batches)
        assert any((batch.label <= 0).all((1, 2)).any() for batch in batches)


def test_labelled_background_gets_its_share() -> None:
    label = disc_sample().label
    cells, background = (label > 0).sum(), (label == 0).sum()
    weight = Sampler([disc_sample()], small_config(background_share=0.8, likely_background=0.0)).background_weight
    assert weight * background / (weight * background + cells) == pytest.approx(0.8)


@pytest.mark.parametrize(("share", "background"), [(0.0, True), (0.8, False), (0.1, True)])
def test_background_is_left_as_it_is_without_a_share_without_labels_or_where_it_has_more(
    share: float, background: bool
) -> None:
    sampler = Sampler([disc_sample(background=background)], small_config(background_share=share))
    assert sampler.background_weight == 1


def test_likely_background_is_in_the_crops_and_takes_weight_off_the_labelled_one() -> None:
    sample = disc_sample()
    sampler = Sampler([sample], small_config(background_share=0.8, likely_background=1.0))
    assert sampler.background_weight == 1
    assert any((sampler.batch(step).label == LIKELY).mean() > 0.2 for step in range(4))
    nothing = Sampler([sample], small_config(likely_background=0.0))
    assert all((nothing.batch(step).label >= -1).all() for step in range(4))


def test_without_labelled_background_crops_still_hold_a_labelled_pixel_and_padding_stays_unlabelled() -> None:
    sampler = Sampler([disc_sample((34, 52), background=False)], small_config(scale_range=0.0))
    for step in range(20):
        batch = sampler.batch(step)
        assert (batch.label >= 0).any(axis=(1, 2)).all()
        assert (batch.label[batch.image[:, 0] == 0] == -1).all()  # the image is 0.1 or brighter, padding is 0


def test_the_rim_of_a_cell_is_likely_background_except_where_something_as_bright_touches_it() -> None:
    rows, columns = np.mgrid[:40, :60]
    label = np.full((40, 60), -1, np.int32)
    image = np.full((40, 60), 0.1, np.float32)
    for name, column in ((1, 15), (2, 45)):
        inside = np.hypot(rows - 20, columns - column) <= 8
        label[inside] = name
        image[inside] = 0.9
    image[12:29, 24:28] = 0.9  # touches the first cell
    likely = _likely(Sample(name="rims", image=image, label=label), 2.0)
    assert not (likely & (label > 0)).any()
    assert likely[20, 5:7].all()  # left of the first cell
    assert likely[20, 54:56].all()  # right of the second
    assert not likely[20, 24:26].any()
    assert _likely(Sample(name="rims", image=image, label=label), 0.0).sum() <= likely.sum()


def test_a_rim_needs_likely_background_to_weigh() -> None:
    sampler = Sampler([disc_sample(background=False)], small_config(likely_background=0.0, rim_width=3.0))
    assert all((sampler.batch(step).label >= -1).all() for step in range(4))
