"""StarDist's losses on labelled pixels only.

The stock losses (stardist 0.9.2, `models/base.py`) have two faults with sparse labels: a batch without a labelled pixel
gives NaN, and the distance regulariser also acts on unlabelled pixels. Where all pixels are labelled, stock losses and
these are equal. Grid points are G x G here; those of stacks have an axis more, which changes nothing.
"""

from collections.abc import Callable
from typing import Any

from cellsparse_stardist.framework import tf

Total = Callable[[Any], Any]
"""Adds a value up over all processes that train together."""
EPSILON = 1e-7
"""What Keras adds to denominators."""
REFERENCE = 10.0
BACKGROUND_REG = 1e-4
"""Weight of the absolute distance on labelled pixels off the cells, as stock StarDist."""


def local_only(value: Any) -> Any:
    """Return the value: the total of a process that trains alone."""
    return value


def prob_loss(prob: Any, predicted: Any, background_weight: Any = 1.0, total: Total = local_only) -> Any:
    """Return the mean binary cross entropy over labelled pixels.

    Args:
        prob: Target, shape (B, G, G, 1), -1 where not labelled.
        predicted: Probability, same shape.
        background_weight: Weight of background pixels relative to cell pixels.
        total: Adds up weights over all processes that train together; the loss is then these crops' share.
    """
    labelled = tf.cast(prob >= 0, tf.float32)
    weight = labelled * tf.where(prob > 0, 1.0, background_weight)
    entropy = tf.keras.backend.binary_crossentropy(tf.maximum(prob, 0.0), predicted)
    return tf.reduce_sum(weight * entropy) / tf.maximum(total(tf.reduce_sum(weight)), EPSILON)


def dist_loss(prob: Any, dist: Any, predicted: Any, total: Total = local_only, kind: str = "absolute", focus: float = 1.0) -> Any:
    """Return the mean absolute error of the ray lengths, weighted by the target probability, plus a regulariser.

    Args:
        prob: Target probability, shape (B, G, G, 1), -1 where not labelled.
        dist: Target ray lengths in pixels, shape (B, G, G, R).
        predicted: Ray lengths in pixels, shape (B, G, G, R).
        total: As for `prob_loss`.
    """
    labelled = tf.cast(prob >= 0, tf.float32)
    mask = labelled * (prob if focus == 1 else tf.pow(tf.maximum(prob, 0.0), focus))
    # Means over all crops, those of other processes included: sums here over counts of all.
    points = total(tf.cast(tf.size(mask), tf.float32))
    reach = tf.cast(tf.shape(dist)[-1], tf.float32)
    weight = total(tf.reduce_sum(mask)) / points
    if kind == "iou":
        over = tf.reduce_sum(tf.maximum(dist, predicted), -1, keepdims=True)
        under = tf.reduce_sum(tf.maximum(tf.minimum(dist, predicted), 0.0), -1, keepdims=True)
        off = REFERENCE * reach * tf.math.log((over + 1.0) / (under + 1.0))
    else:
        off = tf.abs(dist - predicted)
        if kind == "relative":
            off *= REFERENCE / (tf.reduce_mean(dist, -1, keepdims=True) + 1.0)
    error = tf.reduce_sum(mask * off) / (reach * points) / (weight + EPSILON)
    return error + BACKGROUND_REG * tf.reduce_sum(labelled * (1 - mask) * tf.abs(predicted)) / (reach * points)
