"""StarDist's network as a model that predicts, tunes its thresholds and exports itself."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.framework import Config2D, Config3D, StarDist2D, StarDist3D, quiet, tf
from cellsparse_stardist.instances import Thresholds, best_thresholds
from cellsparse_stardist.targets import rays
from cellsparse_stardist.tiles import reach, tiles
from cellsparse_trainer.data.samples import Sample

FOLDER = "stardist"
"""Subfolder and name of the stock model: `StarDist2D(None, name="stardist", basedir=folder)` opens it; `StarDist3D` one
of stacks."""
CONFIG_FILE = "config.json"


class StardistModel:
    """A stock StarDist2D or StarDist3D behind the trainer's contract."""

    def __init__(self, config: Config, stock: Any) -> None:
        self._config = config
        self.stock = stock
        # Keras' own `predict` builds a data pipeline per call and a graph per image size: slower than small networks.
        stock.keras_model.predict = _direct(stock.keras_model)
        self._reach = reach(stock.config)
        # StarDist measures this on the weights at hand, which shows too little where activations are zero.
        stock._tile_overlap = [(pixels, pixels) for pixels in self._reach]

    def predict(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Segment an image.

        Args:
            image: float32, axes YX or ZYX, normalised to [0, 1], any size; large ones go through the network in tiles,
                which changes nothing: they overlap by all that the network sees.

        Returns:
            Label image, axes as the image's: 0 background, 1 to n the cells.
        """
        found = self.stock.thresholds
        return self._predict_at(image, [Thresholds(prob=found.prob, nms=found.nms)])[0]

    def tune(self, samples: Sequence[Sample]) -> None:
        """Set the thresholds that do best on the labelled pixels of these samples; see `tuning`."""
        found = best_thresholds(samples, self._predict_at)
        self.stock.thresholds = {"prob": found.prob, "nms": found.nms}

    def _predict_at(self, image: npt.NDArray[np.float32], choices: Sequence[Thresholds]) -> list[npt.NDArray[np.int32]]:
        """Segment an image at several thresholds; the network runs once."""
        prob, dist, points = self.stock.predict_sparse(
            image,
            prob_thresh=min(each.prob for each in choices),
            n_tiles=tiles(image.shape, self._reach),
            show_tile_progress=False,
        )
        # Candidates of equal probability compete in their order: that of the image's pixels, not that of the tiles.
        order = np.lexsort(points.T[::-1])
        prob, dist, points = prob[order], dist[order], points[order]
        found = []
        for each in choices:
            kept = prob > each.prob
            labels, _ = self.stock._instances_from_prediction(
                image.shape, prob[kept], dist[kept], points=points[kept], nms_thresh=each.nms
            )
            found.append(np.asarray(labels, np.int32))
        return found

    def export(self, folder: Path) -> None:
        """Write `config.json` (ours) and the stock model's folder `stardist/` with weights and thresholds."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(self._config.to_json())
        with quiet():
            copy = stock_class(self._config)(stock_config(self._config), name=FOLDER, basedir=str(folder))
        copy.keras_model.set_weights(self.stock.keras_model.get_weights())
        copy.keras_model.save_weights(str(folder / FOLDER / "weights_best.h5"))
        (folder / FOLDER / "thresholds.json").write_text(json.dumps(self.stock.thresholds._asdict()))


def open_stock(folder: Path) -> StardistModel:
    """Open what `StardistModel.export` wrote.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: `config.json` is damaged.
    """
    config = Config.from_json((folder / CONFIG_FILE).read_text())
    with quiet():
        return StardistModel(config, stock_class(config)(None, name=FOLDER, basedir=str(folder)))


def build(config: Config, dist_start: float) -> Any:
    """Build a stock model with weights that depend on the seed only.

    Args:
        config: The settings.
        dist_start: Ray length in pixels that the network predicts before it has learnt anything.
    """
    with quiet():
        stock = stock_class(config)(stock_config(config), name=FOLDER, basedir=None)
    rng = np.random.default_rng([config.plan.seed, 2])
    for layer in stock.keras_model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([_glorot(kernel.shape, rng), np.zeros_like(bias)])
    head = stock.keras_model.get_layer("dist")
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.full_like(bias, dist_start)])
    return stock


def stock_class(config: Config) -> Any:
    """Return StarDist2D or, for stacks, StarDist3D."""
    return StarDist2D if config.plan.crop_depth is None else StarDist3D


def stock_config(config: Config) -> Any:
    """Translate our settings into StarDist's own."""
    common = {
        "n_channel_in": 1,
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


def _direct(network: Any) -> Callable[..., list[npt.NDArray[np.float32]]]:
    channels = network.input_shape[-1]
    unknown = [None] * (len(network.input_shape) - 1)
    graph = tf.function(network, input_signature=[tf.TensorSpec([*unknown, channels], tf.float32)])

    def predict(image: npt.NDArray[np.float32], **_: Any) -> list[npt.NDArray[np.float32]]:
        return [output.numpy() for output in graph(image)]

    return predict


def _glorot(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Glorot's uniform distribution, Keras' default for convolutions of shape ([depth,] height, width, in, out)."""
    limit = np.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)
