"""Crops: always a labelled pixel, never supervision from outside the image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.background import LIKELY, likely_background
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet.config import resolve
from cellsparse_unet.crops import crop_at
from cellsparse_unet.data import Sampler, prepare
from cellsparse_unet.targets import NOT_CENTRE, outline_classes, three_classes


def preset(name, crop_size=32):
    return resolve(
        trainer_pb2.TrainingSettings(preset=name, crop_size=crop_size, batch_size=3, unet=trainer_pb2.UnetSettings()), 1
    )


@settings(max_examples=60)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**32),
    name=st.sampled_from([trainer_pb2.PRESET_FAST, trainer_pb2.PRESET_PAPER]),
)
def test_outside_the_image_is_never_supervised(height, width, seed, name):
    """A crop of an all-labelled image holds no more labelled area than the image has, and its scale allows."""
    config = preset(name)
    label = np.ones((height, width), np.int32)
    item = prepare(Sample(name="a", image=np.ones((height, width), np.float32), label=label), config)
    rng = np.random.default_rng(seed)
    # Where the image came from is found again by cropping its pixel numbers the same way.
    anchor = int(rng.integers(height * width))
    state = rng.bit_generator.state
    image, classes = crop_at(item.image, item.classes, anchor, config, rng)
    assert image.shape == classes.shape == (32, 32)
    assert np.isfinite(image).all()
    assert (classes >= 0).any()
    largest = (1 + config.scale_range) ** 2
    assert (classes >= 0).sum() <= largest * (height + 2) * (width + 2)
    rng.bit_generator.state = state
    padded = prepare(
        Sample(
            name="b",
            image=np.ones((height + 200, width + 200), np.float32),
            label=np.pad(label, 100, constant_values=-1),
        ),
        config,
    )
    moved = (anchor // width + 100) * (width + 200) + anchor % width + 100
    inside = np.full(padded.classes.shape, -1, np.int8)
    inside[100 : 100 + height, 100 : 100 + width] = item.classes
    object.__setattr__(padded, "classes", inside)
    _, same = crop_at(padded.image, padded.classes, moved, config, rng)
    assert (same == classes).all()  # the border of the image adds nothing that explicit -1 would not


@settings(max_examples=40)
@given(y=st.integers(0, 39), x=st.integers(0, 49), seed=st.integers(0, 2**32))
def test_one_labelled_pixel_is_always_found(y, x, seed):
    config = preset(trainer_pb2.PRESET_FAST)
    label = np.full((40, 50), -1, np.int32)
    label[y, x] = 0
    item = prepare(Sample(name="a", image=np.zeros((40, 50), np.float32), label=label), config)
    _, classes = crop_at(item.image, item.classes, y * 50 + x, config, np.random.default_rng(seed))
    assert (classes == 0).any()
    assert (classes <= 0).all()


def test_anchors_are_cells_then_background(cell_sample, make_config):
    item = prepare(cell_sample, make_config())
    flat = cell_sample.label.ravel()
    assert [np.unique(flat[pixels]).tolist() for pixels in item.anchors] == [[2], [7], [0]]
    assert sum(map(len, item.anchors)) == (flat >= 0).sum()


def test_batch_is_a_function_of_seed_and_step(cell_sample, make_config):
    first, again = Sampler([cell_sample], make_config()), Sampler([cell_sample], make_config())
    first.batch(0)
    for a, b in zip(first.batch(5), again.batch(5), strict=True):
        np.testing.assert_array_equal(a, b)
    images, classes = again.batch(6)
    assert images.shape == (2, 1, 32, 32)
    assert classes.shape == (2, 32, 32)
    assert (images.dtype, classes.dtype) == (np.float32, np.int64)
    assert not np.array_equal(images, first.batch(5)[0])
    assert not np.array_equal(images, Sampler([cell_sample], make_config(seed=1)).batch(6)[0])


def test_items_without_labels_are_left_out(cell_sample, make_config):
    empty = Sample(name="e", image=np.zeros((40, 40), np.float32), label=np.full((40, 40), -1, np.int32))
    sampler = Sampler([empty, cell_sample, empty], make_config())
    for step in range(5):
        assert (sampler.batch(step)[1] >= 0).any((1, 2)).all()
    with pytest.raises(InvalidArgument, match="None of the 2 training items"):
        Sampler([empty, empty], make_config())


def test_constant_images_stay_finite(make_config):
    label = np.full((20, 20), -1, np.int32)
    label[3:9, 3:9] = 1
    sampler = Sampler([Sample(name="z", image=np.zeros((20, 20), np.float32), label=label)], make_config())
    assert np.isfinite(sampler.batch(0)[0]).all()


@pytest.mark.parametrize(("shape", "draw"), [("ellipse", three_classes), ("outline", outline_classes)])
def test_targets_add_likely_background_only_where_asked(cell_sample, make_config, shape, draw):
    plain = draw(cell_sample.label, 0.5)
    given = {"target_shape": shape, "outline_rim": 0.0, "centre_scale": 0.5}
    without = make_config(likely_background=0.0, **given)
    np.testing.assert_array_equal(prepare(cell_sample, without).classes, plain)
    more = prepare(cell_sample, make_config(likely_background=0.5, **given)).classes
    assert (more == LIKELY).sum() > 1000
    np.testing.assert_array_equal(np.where(more == LIKELY, -1, more), plain)


def test_the_rim_of_an_outline_is_background_and_at_a_touching_neighbour_no_centre(make_config):
    label = np.full((40, 60), -1, np.int32)
    label[10:30, 10:30] = 1
    image = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    image[10:30, 30:50] = 0.8
    sample = Sample(name="touching", image=image, label=label)
    classes = prepare(sample, make_config(outline_rim=2.0)).classes
    assert (classes[12:28, 30:32] == NOT_CENTRE).all()
    assert (classes[12:28, 32:48] == -1).all()
    assert (classes[12:28, 8:10] == LIKELY).all()
    alone = prepare(sample, make_config(outline_rim=2.0, likely_background=0.0)).classes
    assert (alone[12:28, 8:10] == NOT_CENTRE).all()
    assert (alone[12:28, 2:6] == -1).all()


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_likely_background_spares_every_cell(cell_sample, bright, background):
    image = cell_sample.image if bright else 1 - cell_sample.image
    label = cell_sample.label if background else np.where(cell_sample.label == 0, -1, cell_sample.label)
    found = likely_background(image, label)
    assert found.mean() > 0.2
    assert (label[found] == -1).all()
    assert (cell_sample.image[found] < 0.4).all()  # cells are at 0.8


def test_likely_background_reaches_the_outline_but_not_into_a_neighbour():
    label = np.full((40, 60), -1, np.int32)
    label[10:30, 10:30] = 1
    image = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    image[10:30, 30:50] = 0.8  # touches the labelled cell
    found = likely_background(image, label)
    assert found[12:28, 8].all()
    assert found[8, 12:28].all()
    assert not found[14:26, 30:48].any()


def test_likely_background_needs_a_difference_in_brightness(cell_sample):
    noise = np.random.default_rng(0).random(cell_sample.image.shape, np.float32)
    assert not likely_background(noise, cell_sample.label).any()
    assert not likely_background(np.zeros_like(noise), cell_sample.label).any()
    assert not likely_background(cell_sample.image, np.minimum(cell_sample.label, 0)).any()
    assert not likely_background(cell_sample.image, np.ones_like(cell_sample.label)).any()
