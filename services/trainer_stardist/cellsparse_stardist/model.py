"""StarDist's network as a model that predicts, tunes its thresholds and exports itself."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.framework import Config2D, StarDist2D, quiet, tf
from cellsparse_stardist.tuning import Thresholds, best_thresholds
from cellsparse_trainer.samples import Sample

FOLDER = "stardist"
"""Subfolder and name of the stock model: `StarDist2D(None, name="stardist", basedir=folder)` opens it."""
CONFIG_FILE = "config.json"
TILE = 768
"""Largest height and width of an image, in pixels, that goes through the network in one piece."""


class StardistModel:
    """A stock StarDist2D behind the trainer's contract."""

    def __init__(self, config: Config, stock: Any) -> None:
        self._config = config
        self.stock = stock
        # Keras' own `predict` builds a data pipeline per call and a graph per image size: slower than small networks.
        stock.keras_model.predict = _direct(stock.keras_model)
        # StarDist measures this on the weights at hand, which shows too little where activations are zero.
        stock._tile_overlap = [(_reach(stock.config),) * 2] * 2

    def predict(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Segment an image.

        Args:
            image: float32, axes YX, normalised to [0, 1], any size; large ones go through the network in tiles, which
                changes nothing: they overlap by all that the network sees.

        Returns:
            Label image, axes YX: 0 background, 1 to n the cells.
        """
        prob, dist, points = self.stock.predict_sparse(image, n_tiles=_tiles(image.shape), show_tile_progress=False)
        # Candidates of equal probability compete in their order: that of the image's pixels, not that of the tiles.
        order = np.lexsort((points[:, 1], points[:, 0]))
        labels, _ = self.stock._instances_from_prediction(
            image.shape, prob[order], dist[order], points=points[order], prob_class=None
        )
        return np.asarray(labels, np.int32)

    def tune(self, samples: Sequence[Sample]) -> None:
        """Set the thresholds that do best on the labelled pixels of these samples; see `tuning`."""
        found = best_thresholds(samples, self._predict_at)
        self.stock.thresholds = {"prob": found.prob, "nms": found.nms}

    def _predict_at(self, image: npt.NDArray[np.float32], choices: Sequence[Thresholds]) -> list[npt.NDArray[np.int32]]:
        """Segment an image at several thresholds; the network runs once."""
        prob, dist = self.stock.predict(image, n_tiles=_tiles(image.shape), show_tile_progress=False)
        found = [
            self.stock._instances_from_prediction(image.shape, prob, dist, prob_thresh=each.prob, nms_thresh=each.nms)
            for each in choices
        ]
        return [np.asarray(labels, np.int32) for labels, _ in found]

    def export(self, folder: Path) -> None:
        """Write `config.json` (ours) and the stock model's folder `stardist/` with weights and thresholds."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(self._config.to_json())
        with quiet():
            copy = StarDist2D(stock_config(self._config), name=FOLDER, basedir=str(folder))
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
        return StardistModel(config, StarDist2D(None, name=FOLDER, basedir=str(folder)))


def build(config: Config, dist_start: float) -> Any:
    """Build a stock StarDist2D with weights that depend on the seed only.

    Args:
        config: The settings.
        dist_start: Ray length in pixels that the network predicts before it has learnt anything.
    """
    with quiet():
        stock = StarDist2D(stock_config(config), name=FOLDER, basedir=None)
    rng = np.random.default_rng([config.plan.seed, 2])
    for layer in stock.keras_model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([_glorot(kernel.shape, rng), np.zeros_like(bias)])
    head = stock.keras_model.get_layer("dist")
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.full_like(bias, dist_start)])
    return stock


def stock_config(config: Config) -> Any:
    """Translate our settings into StarDist's own."""
    return Config2D(
        axes="YX",
        n_rays=config.n_rays,
        n_channel_in=1,
        grid=(config.grid, config.grid),
        unet_n_depth=config.unet_depth,
        unet_n_filter_base=config.unet_filters,
        net_conv_after_unet=config.features,
        train_patch_size=(config.plan.crop_size, config.plan.crop_size),
        train_batch_size=config.plan.batch_size,
        train_learning_rate=config.plan.learning_rate,
    )


def _direct(network: Any) -> Callable[..., list[npt.NDArray[np.float32]]]:
    channels = network.input_shape[-1]
    graph = tf.function(network, input_signature=[tf.TensorSpec([None, None, None, channels], tf.float32)])

    def predict(image: npt.NDArray[np.float32], **_: Any) -> list[npt.NDArray[np.float32]]:
        return [output.numpy() for output in graph(image)]

    return predict


def _glorot(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Glorot's uniform distribution, Keras' default for convolutions of shape (height, width, in, out)."""
    limit = np.sqrt(6 / (shape[0] * shape[1] * (shape[2] + shape[3])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def _reach(config: Any) -> int:
    """Return how many pixels beyond a block of pixels that are pooled together the network sees.

    From the output back to the image: convolutions widen the view by half their width, doubled resolutions round it up
    to whole pixels of the lower one.
    """
    assert config.backbone == "unet"
    convolutions = config.unet_n_conv_per_depth * (config.unet_kernel_size[0] // 2)
    reach = 0 if config.net_conv_after_unet == 0 else config.unet_kernel_size[0] // 2
    for _ in range(config.unet_n_depth):  # up
        reach = -(-(reach + convolutions) // config.unet_pool[0])
    reach += convolutions
    for _ in range(config.unet_n_depth):  # down
        reach = reach * config.unet_pool[0] + convolutions
    grid = config.grid[0]
    while grid > 1:
        reach, grid = reach * 2 + convolutions, grid // 2
    return int(reach)


def _tiles(shape: tuple[int, ...]) -> tuple[int, int]:
    return -(-shape[0] // TILE), -(-shape[1] // TILE)
