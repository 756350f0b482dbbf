"""`compile_step`: XLA computes the same steps, and a resumed training the same as an uninterrupted one."""

import numpy as np
import pytest

from cellsparse_stardist import backend
from cellsparse_stardist.framework import tf
from cellsparse_stardist.network import build_network, with_logits


def train(training, steps):
    return [training.train_step(step)["loss"] for step in steps]


def test_compiled_steps_are_the_same_and_resume_exactly(tiny, sparse_samples, tmp_path):
    plain = backend.create(tiny(), sparse_samples, "cpu")
    whole, resumed = (backend.create(tiny(compile_step=True), sparse_samples, "cpu") for _ in range(2))
    losses = train(whole, range(2))
    whole.save(tmp_path)
    losses += train(whole, range(2, 4))
    np.testing.assert_allclose(losses, train(plain, range(4)), rtol=1e-3)
    resumed.load(tmp_path)
    assert train(resumed, range(2, 4)) == losses[2:]


@tf.function
def outputs_and_gradients(outputs, network, image):
    with tf.GradientTape() as tape:
        logit, rays = outputs(image)
        loss = tf.reduce_sum(logit**2) + tf.reduce_sum(rays**2)
    return [logit, rays, *tape.gradient(loss, network.trainable_variables)]


def test_networks_for_xla_compute_the_same_for_images_and_stacks(tiny):
    rng = np.random.default_rng(0)
    for depth in (None, 8):
        config = tiny(unet_depth=2, crop_depth=depth, copy_paste=0)
        network = build_network(config, 5.0).keras_model
        image = tf.constant(rng.random((2, *config.crop, 1), np.float32))
        ways = [with_logits(network, for_xla=for_xla) for for_xla in (False, True)]
        found = [outputs_and_gradients(way, network, image) for way in ways]
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("switch", ["pinned_prefetch", "device_augmentation"])
def test_switches_that_stardist_lacks_are_refused(tiny, switch):
    with pytest.raises(ValueError, match=f"{switch} is true; allowed: false, StarDist has no such switch"):
        tiny(**{switch: True})
