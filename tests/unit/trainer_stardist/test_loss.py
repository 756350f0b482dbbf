import numpy as np
import pytest

from cellsparse_stardist.framework import tf
from cellsparse_stardist.loss import OVERLAP_FLOOR, OVERLAP_SCALE, dist_loss, prob_loss
from cellsparse_stardist.network import build_network
from cellsparse_stardist.step import LOSS_WEIGHTS
from cellsparse_stardist.targets import Stars, make_targets

STARS = Stars(grid=(2, 2), n_rays=8)
LOSSES = [{"dist_loss": "absolute", "dist_focus": 1.0}, {"dist_loss": "overlap", "dist_focus": 2.0}]


def outputs(shape, rays, seed=0):
    rng = np.random.default_rng(seed)
    return (
        tf.Variable(rng.normal(0, 3, (*shape, 1)).astype(np.float32)),
        tf.Variable(rng.normal(5, 4, (*shape, rays)).astype(np.float32)),
    )


def test_labelled_images_have_stardists_loss(tiny, dense_sample):
    tf.random.set_seed(0)
    stock = build_network(tiny(), 5.0)
    stock.prepare_for_training()
    prob, dist = (t[np.newaxis] for t in make_targets(dense_sample.label, (0, 0), STARS))
    prob = prob[..., np.newaxis]
    config = tiny(dist_loss="absolute", dist_focus=1.0)
    image = dense_sample.image[np.newaxis, ..., np.newaxis]
    target = np.concatenate([dist, np.maximum(prob, 0)], axis=-1)
    expected = stock.keras_model.evaluate(image, (prob, target), verbose=0, return_dict=True)
    prob_out, dist_out = stock.keras_model(image)
    logit = tf.math.log(prob_out / (1 - prob_out))
    ours = float(prob_loss(prob, logit)), float(dist_loss(prob, dist, dist_out, config))
    assert ours == pytest.approx((expected["prob_loss"], expected["dist_loss"]), rel=1e-5)
    assert np.dot(ours, LOSS_WEIGHTS) == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("changes", LOSSES)
def test_unlabelled_pixels_have_no_gradient(sparse_samples, tiny, changes):
    prob, dist = (t[np.newaxis] for t in make_targets(sparse_samples[0].label, (0, 0), STARS))
    prob = prob[..., np.newaxis]
    logit, dist_out = outputs(prob.shape[:3], 8)
    with tf.GradientTape() as tape:
        loss = prob_loss(prob, logit) + dist_loss(prob, dist, dist_out, tiny(**changes))
    prob_gradient, dist_gradient = (g.numpy() for g in tape.gradient(loss, [logit, dist_out]))
    unlabelled = prob[..., 0] < 0
    assert unlabelled.any()
    assert not unlabelled.all()
    assert (prob_gradient[unlabelled] == 0).all()
    assert (dist_gradient[unlabelled] == 0).all()
    assert (prob_gradient[~unlabelled] != 0).all()
    assert (dist_gradient[prob[..., 0] > 0] != 0).all()


@pytest.mark.parametrize("changes", LOSSES)
@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_losses_are_finite_without_cells_or_labels(value, tiny, changes):
    logit, dist_out = outputs((1, 4, 4), 8)
    prob = np.full((1, 4, 4, 1), value, np.float32)
    with tf.GradientTape() as tape:
        loss = prob_loss(prob, logit) + dist_loss(prob, np.zeros((1, 4, 4, 8), np.float32), dist_out, tiny(**changes))
    assert np.isfinite(loss.numpy())
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(loss, [logit, dist_out]))
    assert value == 0 or loss.numpy() == 0


def loss_of(dist, predicted, config, prob=1.0):
    """The loss of grid points in a row, given their rays, shape (points, rays)."""
    dist, predicted = (np.array(rays, np.float32)[np.newaxis, np.newaxis] for rays in (dist, predicted))
    weights = np.broadcast_to(np.array(prob, np.float32), dist.shape[:3])[..., np.newaxis]
    return float(dist_loss(weights, dist, tf.constant(predicted), config))


def test_overlap_is_minus_the_logarithm_of_intersection_over_union(tiny):
    config = tiny(dist_loss="overlap", dist_focus=1.0)
    assert loss_of([[4.0, 8.0]], [[4.0, 8.0]], config) == pytest.approx(0, abs=1e-5)
    # The union's mean ray is (6 + 8) / 2, the intersection's (4 + 5) / 2.
    expected = OVERLAP_SCALE * np.log((7.0 + OVERLAP_FLOOR) / (4.5 + OVERLAP_FLOOR))
    assert loss_of([[4.0, 8.0]], [[6.0, 5.0]], config) == pytest.approx(expected, rel=1e-5)


def test_a_pixel_matters_more_to_a_small_cell(tiny):
    config = tiny(dist_loss="overlap", dist_focus=1.0)
    small, large = (loss_of([[ray, ray]], [[ray + 1, ray + 1]], config) for ray in (4.0, 20.0))
    assert small > 3 * large


def test_rays_below_zero_are_worse_the_lower_they_are(tiny):
    config = tiny(dist_loss="overlap", dist_focus=1.0)
    losses = [loss_of([[4.0, 8.0]], [[4.0, ray]], config) for ray in (1.0, 0.0, -1.0, -5.0)]
    assert losses == sorted(losses)
    assert len(set(losses)) == 4


@pytest.mark.parametrize(("focus", "expected"), [(0.0, 2.0), (1.0, 1.4), (2.0, 19 / 17)])
def test_focus_weighs_a_cells_middle_more(tiny, focus, expected):
    """Errors are 1 where the probability is 1, and 3 where it is 1/4."""
    config = tiny(dist_loss="absolute", dist_focus=focus)
    loss = loss_of([[5.0, 5.0], [5.0, 5.0]], [[6.0, 6.0], [8.0, 8.0]], config, prob=[1.0, 0.25])
    assert loss == pytest.approx(expected, rel=1e-3)
