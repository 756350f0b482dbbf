"""Switches for GPUs compute, on the CPU, what the training computes without them, and resume exactly."""

import dataclasses

import numpy as np
import pytest
import torch

from cellsparse_trainer.data.samples import Sample
from cellsparse_unet import backend
from cellsparse_unet.data import Sampler

STEPS = 4


def train(training, first=0):
    return [training.train_step(step)["loss"] for step in range(first, STEPS)]


@pytest.mark.parametrize("names", [("compile_step",), ("pinned_prefetch",), ("device_augmentation", "pinned_prefetch")])
def test_losses_are_the_same_and_a_resumed_training_is_bit_equal(cell_sample, make_config, tmp_path, names):
    plain = train(backend.create(make_config(steps=STEPS), [cell_sample], "cpu"))
    config = make_config(steps=STEPS, **dict.fromkeys(names, True))
    whole, resumed = (backend.create(config, [cell_sample], "cpu") for _ in range(2))
    losses = [whole.train_step(0)["loss"]]
    whole.save(tmp_path)
    losses += train(whole, 1)
    np.testing.assert_allclose(losses, plain, rtol=1e-3)
    resumed.load(tmp_path)
    assert train(resumed, 1) == losses[1:]
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


def stack(sample):
    """The sample as the middle plane of a stack."""
    image = np.stack([sample.image * share for share in (0.3, 0.7, 1.0, 0.6, 0.2)])
    label = np.full(image.shape, -1, np.int32)
    label[2] = sample.label
    return Sample(name="stack", image=image, label=label)


@pytest.mark.parametrize("kind", ["image", "channels", "small", "stack"])
def test_crops_from_the_device_are_those_of_the_cpu(cell_sample, make_config, kind):
    sample, changes = cell_sample, {}
    if kind == "channels":
        image = np.stack([sample.image, sample.image[::-1]], axis=-1)
        sample, changes = dataclasses.replace(sample, image=image), {"channels": (0, 1), "colour_shift": 0.3}
    if kind == "small":  # much of a crop lies outside the image, more than once mirrored
        sample = dataclasses.replace(sample, image=sample.image[:20, :24], label=sample.label[:20, 30:54])
    if kind == "stack":
        sample, changes = stack(sample), {"crop_depth": 16}
    config = make_config(crop_size=64, batch_size=3, **changes)
    switched_on = dataclasses.replace(config, plan=dataclasses.replace(config.plan, device_augmentation=True))
    on_cpu, on_device = Sampler([sample], config), Sampler([sample], switched_on)
    training = backend.create(switched_on, [sample], "cpu")
    for step in range(4):
        images, classes = on_cpu.batch(step)
        tensors = training._feed._bring(on_device.batch(step))
        np.testing.assert_array_equal(tensors["classes"].numpy(), classes)
        np.testing.assert_allclose(training._crops(tensors).numpy(), images, atol=2e-5)
