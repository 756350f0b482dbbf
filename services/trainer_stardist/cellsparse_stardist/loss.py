"""StarDist's losses on labelled pixels only.

The stock losses (stardist 0.9.2, `models/base.py`) have two faults with sparse labels: a batch without a labelled pixel
gives NaN, and the distance regulariser also acts on unlabelled pixels. Where all pixels are labelled, stock losses and
these are equal. Grid points are G x G here; those of stacks have an axis more, which changes nothing.
"""

from collections.abc import Callable
from typing import Any

from cellsparse_stardist.config import Config
from cellsparse_stardist.framework import tf

Total = Callable[[Any], Any]
"""Adds a value up over all processes that train together."""
EPSILON = 1e-7
"""What Keras adds to denominators."""
OVERLAP_SCALE = 10.0
"""Pixels: radius of cells whose error of overlap weighs as much as that in pixels does."""
OVERLAP_FLOOR = 1.0
"""Pixels that are added to union and intersection, so that their ratio stays finite."""
BACKGROUND_REG = 1e-4
"""Weight of the absolute distance on labelled pixels off the cells, as stock StarDist."""


def local_only(value: Any) -> Any:
    """Return the value: the total of a process that trains alone."""
    return value


def prob_loss(prob: Any, logit: Any, background_weight: Any = 1.0, total: Total = local_only) -> Any:
    """Return the mean binary cross entropy over labelled pixels.

    Args:
        prob: Target, shape (B, G, G, 1), -1 where not labelled.
        logit: Predicted logit of the probability, same shape: the probability itself is 1 in few digits too soon.
        background_weight: Weight of background pixels relative to cell pixels.
        total: Adds up weights over all processes that train together; the loss is then these crops' share.
    """
    labelled = tf.cast(prob >= 0, tf.float32)
    weight = labelled * tf.where(prob > 0, 1.0, background_weight)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.maximum(prob, 0.0), logits=logit)
    return tf.reduce_sum(weight * entropy) / tf.maximum(total(tf.reduce_sum(weight)), EPSILON)


def dist_loss(prob: Any, dist: Any, predicted: Any, config: Config, total: Total = local_only) -> Any:
    """Return the mean error of the ray lengths, weighted by the target probability, plus a regulariser.

    The error "absolute" is the mean absolute one, that of stock StarDist. "overlap" is the logarithm of the predicted
    star's intersection over union with the true one (Xie 2020, arXiv:1909.13226), both measured along the rays: one
    pixel matters more to a small cell than to a large one, as it does to scores.

    A power of the target probability above 1 moves the weight towards the middle of cells. Stars are taken from there,
    and a ray is harder to measure from where it is long.

    Args:
        prob: Target probability, shape (B, G, G, 1), -1 where not labelled.
        dist: Target ray lengths in pixels, shape (B, G, G, R).
        predicted: Ray lengths in pixels, shape (B, G, G, R).
        config: What the error is (`dist_loss`) and how it is weighted (`dist_focus`).
        total: As for `prob_loss`.
    """
    labelled = tf.cast(prob >= 0, tf.float32)
    cells = labelled * prob
    mask = cells if config.dist_focus == 1 else labelled * tf.pow(tf.maximum(prob, 0.0), config.dist_focus)
    # Means over all crops, those of other processes included: sums here over counts of all.
    points = total(tf.cast(tf.size(mask), tf.float32))
    reach = tf.cast(tf.shape(dist)[-1], tf.float32)
    weight = total(tf.reduce_sum(mask)) / points
    if config.dist_loss == "absolute":
        summed = tf.reduce_sum(mask * tf.abs(dist - predicted))
    else:
        summed = reach * tf.reduce_sum(mask * OVERLAP_SCALE * _overlap_error(dist, predicted))
    error = summed / (reach * points) / (weight + EPSILON)
    return error + BACKGROUND_REG * tf.reduce_sum(labelled * (1 - cells) * tf.abs(predicted)) / (reach * points)


def _overlap_error(dist: Any, predicted: Any) -> Any:
    """Return -log of the intersection over union along the rays, shape (B, G, G, 1).

    Rays below 0 share nothing. What they lack to 0 is added to the union, so that they have a gradient.
    """
    positive = tf.maximum(predicted, 0.0)
    union = tf.reduce_mean(tf.maximum(dist, positive) + positive - predicted, axis=-1, keepdims=True)
    shared = tf.reduce_mean(tf.minimum(dist, positive), axis=-1, keepdims=True)
    return tf.math.log((union + OVERLAP_FLOOR) / (shared + OVERLAP_FLOOR))
