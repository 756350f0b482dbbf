import numpy as np
import pytest

from cellsparse_stardist.framework import tf
from cellsparse_stardist.loss import dist_loss, prob_loss
from cellsparse_stardist.network import build_network
from cellsparse_stardist.step import LOSS_WEIGHTS
from cellsparse_stardist.targets import Stars, make_targets

STARS = Stars(grid=(2, 2), n_rays=8)


def outputs(shape, rays, seed=0):
    rng = np.random.default_rng(seed)
    return (
        tf.Variable(rng.uniform(0.01, 0.99, (*shape, 1)).astype(np.float32)),
        tf.Variable(rng.normal(5, 4, (*shape, rays)).astype(np.float32)),
    )


def test_labelled_images_have_stardists_loss(tiny, dense_sample):
    tf.random.set_seed(0)
    stock = build_network(tiny(), 5.0)
    stock.prepare_for_training()
    prob, dist = (t[np.newaxis] for t in make_targets(dense_sample.label, (0, 0), STARS))
    prob = prob[..., np.newaxis]
    image = dense_sample.image[np.newaxis, ..., np.newaxis]
    target = np.concatenate([dist, np.maximum(prob, 0)], axis=-1)
    expected = stock.keras_model.evaluate(image, (prob, target), verbose=0, return_dict=True)
    prob_out, dist_out = stock.keras_model(image)
    ours = float(prob_loss(prob, prob_out)), float(dist_loss(prob, dist, dist_out))
    assert ours == pytest.approx((expected["prob_loss"], expected["dist_loss"]), rel=1e-5)
    assert np.dot(ours, LOSS_WEIGHTS) == pytest.approx(expected["loss"], rel=1e-5)


def test_unlabelled_pixels_have_no_gradient(sparse_samples):
    prob, dist = (t[np.newaxis] for t in make_targets(sparse_samples[0].label, (0, 0), STARS))
    prob = prob[..., np.newaxis]
    prob_out, dist_out = outputs(prob.shape[:3], 8)
    with tf.GradientTape() as tape:
        loss = prob_loss(prob, prob_out) + dist_loss(prob, dist, dist_out)
    prob_gradient, dist_gradient = (g.numpy() for g in tape.gradient(loss, [prob_out, dist_out]))
    unlabelled = prob[..., 0] < 0
    assert unlabelled.any()
    assert not unlabelled.all()
    assert (prob_gradient[unlabelled] == 0).all()
    assert (dist_gradient[unlabelled] == 0).all()
    assert (prob_gradient[~unlabelled] != 0).all()
    assert (dist_gradient[prob[..., 0] > 0] != 0).all()


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_losses_are_finite_without_cells_or_labels(value):
    prob_out, dist_out = outputs((1, 4, 4), 8)
    prob = np.full((1, 4, 4, 1), value, np.float32)
    with tf.GradientTape() as tape:
        loss = prob_loss(prob, prob_out) + dist_loss(prob, np.zeros((1, 4, 4, 8), np.float32), dist_out)
    assert np.isfinite(loss.numpy())
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(loss, [prob_out, dist_out]))
    assert value == 0 or loss.numpy() == 0
