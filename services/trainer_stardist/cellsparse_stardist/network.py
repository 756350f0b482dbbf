"""StarDist's network: a stock model built with fresh weights, or read from a model's folder."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.framework import Config2D, Config3D, StarDist2D, StarDist3D, quiet, tf
from cellsparse_stardist.instances import Thresholds
from cellsparse_stardist.targets import rays
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.models.outline_refinement import OutlineLevel, read_level, without_level

FOLDER = "stardist"
THRESHOLDS_FILE = "thresholds.json"
"""Subfolder and name of the stock model: `StarDist2D(None, name="stardist", basedir=folder)` opens it; `StarDist3D` one
of stacks."""


OUTPUTS = ("prob", "dist")
"""The layers that no ReLU follows."""


class Stored(NamedTuple):
    """What a model's folder holds."""

    stock: Any
    """The stock model with its weights and thresholds."""
    config: Config
    thresholds: Thresholds
    outline_level: OutlineLevel | None
    """At which outlines are refined (see `outline_refinement`); None: they are not."""


def build_network(config: Config, dist_start: float = 0.0) -> Any:
    """Build a stock model with weights that depend on the seed only.

    Args:
        config: The settings.
        dist_start: Ray length in pixels that the network predicts before it has learnt anything.
    """
    stock = empty_network(config)
    rng = np.random.default_rng([config.plan.seed, 2])
    for layer in stock.keras_model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            draw = _glorot if config.initialization == "glorot" or layer.name in OUTPUTS else _he
            layer.set_weights([draw(kernel.shape, rng), np.zeros_like(bias)])
    head = stock.keras_model.get_layer("dist")
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.full_like(bias, dist_start)])
    return stock


def empty_network(config: Config, folder: Path | None = None) -> Any:
    """Build a stock model whose weights are yet to be set, in memory or, with its own settings, in a folder."""
    with quiet():
        basedir = None if folder is None else str(folder)
        return stock_class(config)(stock_config(config), name=FOLDER, basedir=basedir)


def with_logits(network: Any, *, for_xla: bool = False) -> Callable[[Any], tuple[Any, Any]]:
    """Return StarDist's Keras model, in training, with the logit in place of the probability.

    Args:
        network: The model; weights are shared with it.
        for_xla: Whether to write pooling and enlarging such that XLA can compile their gradients, and computes them in
            one order on a GPU, too. Results are the same.
    """
    prob, dist = (network.get_layer(name) for name in OUTPUTS)
    trunk = tf.keras.Model(network.inputs, [prob.input, dist.output])
    if for_xla:
        trunk = tf.keras.models.clone_model(trunk, clone_function=_for_xla)

    def run(image: Any) -> tuple[Any, Any]:
        features, rays = trunk([image], training=True)
        return tf.nn.convolution(features, prob.kernel, padding="SAME") + prob.bias, rays

    return run


def _for_xla(layer: Any) -> Any:
    """Return a layer itself, or what does the same with operations that XLA compiles."""
    layers = tf.keras.layers
    if isinstance(layer, layers.UpSampling2D | layers.UpSampling3D):
        return layers.Lambda(lambda x: _along_axes(x, layer.size, _repeated))
    if isinstance(layer, layers.MaxPooling2D | layers.MaxPooling3D):
        return layers.Lambda(lambda x: _along_axes(x, layer.pool_size, _largest))
    return layer


def _along_axes(x: Any, sizes: tuple[int, ...], change: Callable[[Any, int, int], Any]) -> Any:
    """Change features (B, ..., C) along each axis of pixels, by its size."""
    for axis, size in enumerate(sizes, 1):
        x = change(x, size, axis)
    return x


def _repeated(x: Any, times: int, axis: int) -> Any:
    return tf.repeat(x, times, axis=axis)


def _largest(x: Any, size: int, axis: int) -> Any:
    """Return the largest of each `size` neighbours along an axis."""
    before = (slice(None),) * axis
    return functools.reduce(tf.maximum, [x[(*before, slice(first, None, size))] for first in range(size)])


def read_model(folder: Path) -> Stored:
    """Read what `StardistModel.export` wrote.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: `config.json` is damaged.
    """
    stored = read_config(folder)
    config = Config.from_dict(stored.config)
    level = read_level(stored.fitted)
    try:
        thresholds = Thresholds(**without_level(stored.fitted))
    except TypeError as error:
        raise ValueError(f"{folder.name} holds no StarDist thresholds: {error}.") from error
    with quiet():
        stock = stock_class(config)(None, name=FOLDER, basedir=str(folder))
    stock.thresholds = thresholds.to_dict()
    return Stored(stock, config, thresholds, level)


def read_config(folder: Path) -> ModelConfig:
    """Read the `config.json` of a model's folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    stored = ModelConfig.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if stored.fitted:
        return stored
    # Release 0.1.0 kept thresholds in the stock model's own file only.
    thresholds = json.loads((folder / FOLDER / THRESHOLDS_FILE).read_text(encoding="utf-8"))
    return ModelConfig(config=stored.config, fitted=thresholds)


def stock_class(config: Config) -> Any:
    """Return StarDist2D or, for stacks, StarDist3D."""
    return StarDist2D if config.plan.crop_depth is None else StarDist3D


def stock_config(config: Config) -> Any:
    """Translate our settings into StarDist's own."""
    common = {
        "n_channel_in": config.plan.inputs,
        "grid": config.grids,
        "unet_n_depth": config.unet_depth,
        "unet_n_filter_base": config.unet_filters,
        "net_conv_after_unet": config.features,
        "train_patch_size": config.crop,
        "train_batch_size": config.plan.batch_size,
        "train_learning_rate": config.plan.learning_rate,
    }
    if config.plan.crop_depth is None:
        return Config2D(axes="YX", n_rays=config.n_rays, **common)
    spiral = rays(config.n_rays, config.anisotropy)
    return Config3D(axes="ZYX", rays=spiral, anisotropy=config.anisotropy, **common)


def _glorot(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw from Glorot's uniform distribution, Keras' default for kernels ([depth,] height, width, in, out)."""
    limit = np.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def _he(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw from the uniform distribution of He 2015 (arXiv:1502.01852).

    A ReLU halves the power of a signal; these weights double it. After Glorot's, a network of twenty layers starts with
    hardly any signal.
    """
    limit = np.sqrt(6 / math.prod(shape[:-1]))
    return rng.uniform(-limit, limit, shape).astype(np.float32)
