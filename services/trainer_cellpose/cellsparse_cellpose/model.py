"""Cellpose's network as a model that segments and exports itself."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cellpose.resnet_torch import CPnet
from cellpose.transforms import resize_image
from scipy.special import expit

from cellsparse_cellpose.config import Config
from cellsparse_cellpose.inference import InferenceNetwork, prepare
from cellsparse_cellpose.instances import find_cells
from cellsparse_cellpose.network import WEIGHTS_FILE, Stored, read_model
from cellsparse_cellpose.tiles import images_per_batch, run, run_many
from cellsparse_cellpose.windows import LargeFlows
from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.scores import Segmentation, mean_per_cell
from cellsparse_common.imaging.types import Floats, Indices, Labels
from cellsparse_torch.devices import choose_device, predicts_in_bfloat16
from cellsparse_torch.files import write_state
from cellsparse_torch.flows.planes import join_planes
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.data.fed_image import Box, FedImage
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.outline_refinement import OutlineLevel, fit_level, level_to_dict, refine

SAME_SIZE = 1.3
"""Cells count as brought to the mean diameter if theirs is not off by more than this factor: another pass would hardly
find others."""
MOST_ENLARGED = 2.0
"""Largest factor by which an image is enlarged beyond what the dataset's cells need; it costs the square of it."""
MOST_REDUCED = 4.0
"""Largest factor by which it is reduced."""
SMALLEST_HALO = 128
"""Least overlap of the windows of a large image, pixels."""
FEWEST_MEASURED = 3
"""Fewest cells whose size says anything about an image."""


class CellposeModel:
    """The model of the backend contract: a network, its settings and the diameter of its cells.

    Args:
        network: Shared, not copied.
        config: The settings it was trained with.
        diameter: Mean diameter in pixels of the cells in the images to segment.
        half: Whether the network computes in bfloat16, on a CPU.
        outline_level: At which outlines are refined (see `outline_refinement`); None: they are not, until
            `fit_outlines`.
    """

    def __init__(
        self,
        network: CPnet,
        config: Config,
        diameter: float,
        *,
        half: bool = False,
        outline_level: OutlineLevel | None = None,
    ) -> None:
        self._network = network
        self._outline_level = outline_level
        self._half = half
        self._config = config
        self._diameter = diameter

    def predict(self, image: Floats) -> Labels:
        """Segment an image as Cellpose does, without normalising it again.

        Args:
            image: Values in [0, 1], shape (Y, X) or, cytoplasm and nucleus, (Y, X, 2), any size.

        Returns:
            Label image of shape (Y, X): 0 background, 1 to n the cells.
        """
        return self.segment(image).labels

    def segment(self, image: Floats) -> Segmentation:
        """Segment an image as `predict`, and score each cell: its mean cell probability."""
        diameter = self._diameter
        found = self._segment_as(image, diameter)
        for _ in range(self._config.size_passes):
            measured = self._measured(np.bincount(found.labels.ravel())[1:])
            if not _differs(measured, diameter):
                break
            diameter = measured
            found = self._segment_as(image, diameter)
        return found

    def windows(self, image: FedImage) -> "CellposeWindows":
        """Return a large image as windows, whose cells are those that `segment` finds in the whole."""
        return CellposeWindows(self, image)

    def segment_stack(self, image: Floats) -> Segmentation:
        """Segment a stack plane by plane and join the cells of neighbouring planes (see `planes.join_planes`).

        Args:
            image: Values in [0, 1], shape (Z, Y, X) or (Z, Y, X, 2), any size.

        Returns:
            Label image of shape (Z, Y, X): 0 background, 1 to n the cells, each of `min_size` voxels or more. Scores as
            `segment`, over all planes of a cell.
        """
        shape = image.shape[:3]
        probability = np.empty(shape, np.float32)
        scale = self._scale(self._diameter)
        size = images_per_batch(*_scaled(shape[1:], scale))

        def planes() -> Iterator[Labels]:
            for start in range(0, len(image), size):
                for z, output in enumerate(self._outputs(image[start : start + size], scale), start):
                    expit(output[2], out=probability[z])
                    yield self._cells(output, scale)

        stack = join_planes(planes(), shape, self._config.stitch_threshold)
        labels = without_small(stack, self._config.min_size)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, probability))

    def tune(self, samples: Sequence[Sample]) -> None:
        """Keep the thresholds of the settings, and the network's own outlines."""
        self._outline_level = None

    def fit_outlines(self, samples: Sequence[Sample]) -> None:
        """Fit the level of outlines, where `refine_outlines` is set."""
        self._outline_level = None
        if self._config.refine_outlines:
            self._outline_level = fit_level(samples, self.predict)

    def export(self, folder: Path) -> None:
        """Write the file that stock Cellpose opens (`pretrained_model=`), and `config.json`."""
        write_state(self._network, folder / WEIGHTS_FILE)
        self.write_config(folder)

    def write_config(self, folder: Path) -> None:
        """Write `config.json` alone."""
        fitted = {"diameter": self._diameter, **level_to_dict(self._outline_level)}
        stored = ModelConfig(config=self._config.to_dict(), fitted=fitted)
        (folder / CONFIG_FILE).write_text(stored.to_json(), encoding="utf-8")

    def _segment_as(self, image: Floats, diameter: float) -> Segmentation:
        """Segment an image whose cells have a diameter in pixels."""
        scale = self._scale(diameter)
        return self._found(image, self._outputs(image[np.newaxis], scale)[0], scale)

    def _found(self, image: Floats, output: npt.NDArray[np.float32], scale: float) -> Segmentation:
        """Return the cells of an image, given its outputs, shape (3, Y, X)."""
        labels = without_small(self._cells(output, scale), self._config.min_size)
        found = Segmentation(labels=labels, scores=mean_per_cell(labels, expit(output[2])))
        return refine(image, found, self._outline_level)

    def _measured(self, sizes: Indices) -> float:
        """Return the median diameter of cells of these areas, within limits; the dataset's where there are too few."""
        if np.count_nonzero(sizes) < FEWEST_MEASURED:
            return self._diameter
        found = float(np.median(np.sqrt(sizes[sizes > 0]))) * 2 / np.pi**0.5
        return float(np.clip(found, self._diameter / MOST_ENLARGED, self._diameter * MOST_REDUCED))

    def _scale(self, diameter: float) -> float:
        """Return the pixels that the network sees for each pixel of an image whose cells have a diameter."""
        return self._config.mean_diameter / diameter

    @cached_property
    def _prepared(self) -> InferenceNetwork:
        """The network for prediction, with the weights of the first one."""
        return prepare(self._network, half=self._half)

    def _outputs(self, images: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
        """Return flows (y, x) times 5 and the logit of the cell probability, shape (N, 3, Y, X).

        Args:
            images: Shape (N, Y, X), of a model of two channels (N, Y, X, 2).
            scale: Pixels that the network sees for each of the images'.
        """
        height, width = images.shape[1:3]
        planes = images if self._config.plan.channels else np.stack([images, np.zeros_like(images)], axis=-1)
        if scale != 1:
            scaled_height, scaled_width = _scaled((height, width), scale)
            planes = np.stack([resize_image(each, Ly=scaled_height, Lx=scaled_width) for each in planes])
        one = len(planes) == 1
        output = run(self._prepared, planes[0])[np.newaxis] if one else run_many(self._prepared, planes)
        if scale != 1:
            output = np.stack([resize_image(each, Ly=height, Lx=width) for each in output])
        return np.ascontiguousarray(output.transpose(0, 3, 1, 2))

    def _cells(self, output: npt.NDArray[np.float32], scale: float) -> Labels:
        """Return the cells of any size in one image's outputs, shape (3, Y, X)."""
        return find_cells(output, self._config, scale, self._network.device)


class CellposeWindows:
    """A large image as windows (see `cellsparse_trainer.models.windows`).

    Args:
        model: The model.
        image: The image.
    """

    def __init__(self, model: CellposeModel, image: FedImage) -> None:
        self._model, self._image = model, image
        self._passes = 0
        self._begin(model._diameter)

    def _begin(self, diameter: float) -> None:
        self._diameter, self._scale = diameter, self._model._scale(diameter)
        shape = _scaled(self._image.shape, self._scale) if self._scale != 1 else self._image.shape
        self._flows = LargeFlows(self._model._prepared, self._image, shape)

    @property
    def halo(self) -> int:
        """Pixels around a window in which a cell is followed to its middle and its flows are compared."""
        return int(max(SMALLEST_HALO, 4 * self._diameter))

    def segment(self, box: Box) -> Segmentation:
        """Return the cells of a part of the image."""
        return self._model._found(self._image.read(box), self._flows.output(box), self._scale)

    def again(self, areas: Indices) -> bool:
        """Return whether the cells are so much larger or smaller than assumed that another pass is worth it."""
        measured = self._model._measured(areas)
        if self._passes >= self._model._config.size_passes or not _differs(measured, self._diameter):
            return False
        self._passes += 1
        self._begin(measured)
        return True


def _differs(measured: float, diameter: float) -> bool:
    return max(measured, diameter) > SAME_SIZE * min(measured, diameter)


def _scaled(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Return the height and width that the network sees of an image's."""
    return max(1, int(shape[0] * scale)), max(1, int(shape[1] * scale))


def open_model(folder: Path, device: str) -> CellposeModel:
    """Open what `CellposeModel.export` wrote.

    Args:
        folder: Folder with `cellpose_model` and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
        ValueError: The files do not belong together.
    """
    target = choose_device(device)
    return loaded(read_model(folder), target)


def loaded(stored: Stored, device: torch.device) -> CellposeModel:
    """Return what a folder holds as a model on a device, in the number format that suits both."""
    half = predicts_in_bfloat16(stored.config.plan.precision, device)
    network = stored.network.to(device)
    return CellposeModel(network, stored.config, stored.diameter, half=half, outline_level=stored.outline_level)
