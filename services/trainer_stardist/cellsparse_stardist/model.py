"""StarDist's network as a model that predicts, tunes its thresholds and exports itself."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.scores import Segmentation, cell_numbers
from cellsparse_common.imaging.types import Floats, Labels
from cellsparse_stardist.config import Config
from cellsparse_stardist.cpu_bfloat16 import bfloat16, predicts_in_bfloat16
from cellsparse_stardist.flips import with_flips
from cellsparse_stardist.framework import non_maximum_suppression_sparse, polygons_to_label, tf, use_device
from cellsparse_stardist.instances import Thresholds, best_thresholds, size_factor
from cellsparse_stardist.network import FOLDER, THRESHOLDS_FILE, empty_network, read_model
from cellsparse_stardist.ray_averages import Points, averaged, owners
from cellsparse_stardist.star_scores import star_scores
from cellsparse_stardist.tiles import reach, tiles
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.outline_refinement import OutlineLevel, fit_level, level_to_dict, refine
from cellsparse_trainer.models.windows import SeparateWindows

LONGEST_RAYS = 192
"""Pixels that the windows of a large image overlap beyond what the network sees: the rays of two cells, one of which
may suppress the other."""


class StardistModel:
    """The model of the backend contract: a stock StarDist2D or StarDist3D.

    Args:
        stock: The stock model; shared, not copied. Its `predict` is replaced by a faster one.
        config: The settings it was trained with.
        outline_level: At which outlines are refined (see `outline_refinement`); None: they are not, until
            `fit_outlines`.
        flips: Whether outputs are means over an image and its mirror image; not until `tune`, so that validations of a
            training take half as long.
        half: Whether the network computes in bfloat16, on a CPU.
    """

    def __init__(
        self,
        stock: Any,
        config: Config,
        outline_level: OutlineLevel | None = None,
        *,
        flips: bool = False,
        half: bool = False,
    ) -> None:
        self._config = config
        self._outline_level = outline_level
        self.stock = stock
        # Keras' own `predict` builds a data pipeline per call and a graph per image size: slower than small networks.
        self._network = _direct(stock.keras_model, half)
        self._flip(flips)
        self._reach = reach(stock.config)
        # StarDist measures this on the weights at hand, which shows too little where activations are zero.
        stock._tile_overlap = [(pixels, pixels) for pixels in self._reach]

    @property
    def thresholds(self) -> Thresholds:
        """When a polygon is a cell."""
        found = self.stock.thresholds
        return Thresholds(prob=float(found.prob), nms=float(found.nms))

    def predict(self, image: Floats) -> Labels:
        """Segment an image.

        Args:
            image: Axes YX or ZYX, with several channels YXC or ZYXC, normalised to [0, 1], any size. Large images go
                through the network in tiles, with the same result: the tiles overlap by all that the network sees.

        Returns:
            Label image, axes as the image's without channels: 0 background, 1 to n the cells.
        """
        return self.segment(image).labels

    def segment(self, image: Floats) -> Segmentation:
        """Segment an image as `predict`, and score each cell: the probability of its star."""
        return refine(image, self._segment_at(image, [self.thresholds])[0], self._outline_level)

    def windows(self, image: FedImage) -> SeparateWindows:
        """Return a large image as windows, whose cells are those that `segment` finds in the whole."""
        return SeparateWindows(image=image, find=self.segment, halo=max(self._reach) + LONGEST_RAYS)

    def tune(self, samples: Sequence[Sample]) -> None:
        """Fit the length of rays and the thresholds to the labelled pixels of these samples (see `instances`).

        The length is fitted where `fit_sizes` is set. The network's output layer then has other weights. From here on,
        the model predicts with test-time flips, where its settings have them.
        """
        self._outline_level = None
        self._flip(self._config.test_flips and self._config.plan.crop_depth is None)
        if self._config.fit_sizes:
            head = self.stock.keras_model.get_layer("dist")
            factor = np.float32(size_factor(samples, self.predict))
            head.set_weights([weights * factor for weights in head.get_weights()])
        self.stock.thresholds = best_thresholds(samples, self._predict_at).to_dict()

    def fit_outlines(self, samples: Sequence[Sample]) -> None:
        """Fit the level of outlines, where `refine_outlines` is set and images are trained on."""
        self._outline_level = None
        if self._config.refine_outlines and self._config.plan.crop_depth is None:
            self._outline_level = fit_level(samples, self.predict)

    def _flip(self, flips: bool) -> None:
        config = self._config
        predict = with_flips(self._network, config.grid, config.unet_depth) if flips else self._network
        self.stock.keras_model.predict = predict

    def _predict_at(self, image: Floats, choices: Sequence[Thresholds]) -> list[Labels]:
        return [each.labels for each in self._segment_at(image, choices)]

    def _segment_at(self, image: Floats, choices: Sequence[Thresholds]) -> list[Segmentation]:
        """Segment an image at several thresholds; the network runs once."""
        several = self._config.plan.inputs > 1
        shape = image.shape[:-1] if several else image.shape
        prob, dist, points = self.stock.predict_sparse(
            image,
            prob_thresh=min(each.prob for each in choices),
            n_tiles=(*tiles(shape, self._reach), *[1] * several),
            show_tile_progress=False,
            **({"b": self._config.edge_margin} if len(shape) == 2 else {}),
        )
        # Candidates of equal probability compete in their order: that of the image's pixels, not that of the tiles.
        order = np.lexsort(points.T[::-1])
        prob, dist, points = prob[order], dist[order], points[order]
        found = []
        for each in choices:
            kept = prob > each.prob
            find = self._averaged if self._config.average_rays and len(shape) == 2 else self._stars
            labels, stars = find(shape, prob[kept], dist[kept], points[kept], each.nms)
            found.append(Segmentation(labels=labels, scores=star_scores(labels, stars)))
        return found

    def _stars(
        self, shape: tuple[int, ...], prob: Floats, dist: Floats, points: Points, nms: float
    ) -> tuple[Labels, Mapping[str, Any]]:
        """Draw the stars that are kept, as stock StarDist does."""
        labels, stars = self.stock._instances_from_prediction(shape, prob, dist, points=points, nms_thresh=nms)
        return np.asarray(labels, np.int32), stars

    def _averaged(
        self, shape: tuple[int, ...], prob: Floats, dist: Floats, points: Points, nms: float
    ) -> tuple[Labels, Mapping[str, Any]]:
        """Draw the stars that are kept, with outlines that all of their grid points decide."""
        at, scores, rays, _ = non_maximum_suppression_sparse(dist, prob, points, nms_thresh=nms)
        labels = polygons_to_label(rays, at, shape, prob=scores)
        if len(at):
            rays = averaged(rays, at, dist, points, prob, owners(labels, points))
            labels = polygons_to_label(rays, at, shape, prob=scores)
        numbers = cell_numbers(labels)  # a star that others cover wholly has no pixel
        renumbered = np.zeros(len(at) + 1, np.int32)
        renumbered[numbers] = np.arange(1, len(numbers) + 1)
        return renumbered[labels], {"prob": scores[numbers - 1]}

    def export(self, folder: Path) -> None:
        """Write `config.json` (ours) and the stock model's folder `stardist/` with weights and thresholds."""
        folder.mkdir(parents=True, exist_ok=True)
        self.write_config(folder)
        copy = empty_network(self._config, folder)
        copy.keras_model.set_weights(self.stock.keras_model.get_weights())
        copy.keras_model.save_weights(str(folder / FOLDER / "weights_best.h5"))
        (folder / FOLDER / THRESHOLDS_FILE).write_text(json.dumps(self.thresholds.to_dict()))

    def write_config(self, folder: Path) -> None:
        """Write `config.json` alone."""
        fitted = {**self.thresholds.to_dict(), **level_to_dict(self._outline_level)}
        stored = ModelConfig(config=self._config.to_dict(), fitted=fitted)
        (folder / CONFIG_FILE).write_text(stored.to_json(), encoding="utf-8")


def open_model(folder: Path, device: str) -> StardistModel:
    """Open what `StardistModel.export` wrote.

    Args:
        folder: Holds `config.json` and the stock model's folder.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
        ValueError: `config.json` is damaged.
    """
    chosen = use_device(device)
    stored = read_model(folder)
    half = predicts_in_bfloat16(stored.config.plan.precision, chosen)
    flips = stored.config.test_flips and stored.config.plan.crop_depth is None
    return StardistModel(stored.stock, stored.config, stored.outline_level, flips=flips, half=half)


def _direct(network: Any, half: bool) -> Callable[..., list[npt.NDArray[np.float32]]]:
    channels = network.input_shape[-1]
    unknown = [None] * (len(network.input_shape) - 1)
    signature = [tf.TensorSpec([*unknown, channels], tf.float32)]
    graph = tf.function(network, input_signature=signature, autograph=False)  # no branch depends on a tensor

    def predict(image: npt.NDArray[np.float32], **_: Any) -> list[npt.NDArray[np.float32]]:
        with bfloat16(half):
            return [output.numpy() for output in graph(image)]

    return predict
