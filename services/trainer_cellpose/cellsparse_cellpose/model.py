"""Cellpose's network as a model that segments and exports itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cellpose.resnet_torch import CPnet
from cellpose.transforms import resize_image
from scipy.special import expit

from cellsparse_cellpose.config import Config
from cellsparse_cellpose.instances import find_cells
from cellsparse_cellpose.network import WEIGHTS_FILE, read_model
from cellsparse_cellpose.tiles import images_per_batch, run, run_many
from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.scores import Segmentation, mean_per_cell
from cellsparse_common.imaging.types import GrayImage, Labels
from cellsparse_torch.devices import choose_device
from cellsparse_torch.files import write_state
from cellsparse_torch.flows.planes import join_planes
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.data.samples import Sample


class CellposeModel:
    """The model of the backend contract: a network, its settings and the diameter of its cells.

    Args:
        network: Shared, not copied.
        config: The settings it was trained with.
        diameter: Mean diameter in pixels of the cells in the images to segment.
    """

    def __init__(self, network: CPnet, config: Config, diameter: float) -> None:
        self._network = network
        self._config = config
        self._diameter = diameter

    def predict(self, image: GrayImage) -> Labels:
        """Segment an image as Cellpose does, without normalising it again.

        Args:
            image: Values in [0, 1], shape (Y, X), any size.

        Returns:
            Label image of the same shape: 0 background, 1 to n the cells.
        """
        return self.segment(image).labels

    def segment(self, image: GrayImage) -> Segmentation:
        """Segment an image as `predict`, and score each cell: its mean cell probability."""
        output = self._outputs(image[np.newaxis])[0]
        labels = without_small(self._cells(output), self._config.min_size)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, expit(output[2])))

    def segment_stack(self, image: GrayImage) -> Segmentation:
        """Segment a stack plane by plane and join the cells of neighbouring planes (see `planes.join_planes`).

        Args:
            image: Values in [0, 1], shape (Z, Y, X), any size.

        Returns:
            Label image of the same shape: 0 background, 1 to n the cells, each of `min_size` voxels or more. Scores as
            `segment`, over all planes of a cell.
        """
        probability = np.empty(image.shape, np.float32)
        size = images_per_batch(*self._scaled(image.shape[1:]))

        def planes() -> Iterator[Labels]:
            for start in range(0, len(image), size):
                for z, output in enumerate(self._outputs(image[start : start + size]), start):
                    expit(output[2], out=probability[z])
                    yield self._cells(output)

        stack = join_planes(planes(), image.shape, self._config.stitch_threshold)
        labels = without_small(stack, self._config.min_size)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, probability))

    def tune(self, samples: Sequence[Sample]) -> None:
        """Keep the thresholds of the settings."""

    def export(self, folder: Path) -> None:
        """Write the file that stock Cellpose opens (`pretrained_model=`), and `config.json`."""
        write_state(self._network, folder / WEIGHTS_FILE)
        self.write_config(folder)

    def write_config(self, folder: Path) -> None:
        """Write `config.json` alone."""
        stored = ModelConfig(config=self._config.to_dict(), fitted={"diameter": self._diameter})
        (folder / CONFIG_FILE).write_text(stored.to_json(), encoding="utf-8")

    @property
    def _scale(self) -> float:
        return self._config.mean_diameter / self._diameter

    def _scaled(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width that the network sees of an image's."""
        return max(1, int(shape[0] * self._scale)), max(1, int(shape[1] * self._scale))

    def _outputs(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return flows (y, x) times 5 and the logit of the cell probability of images (N, Y, X), shape (N, 3, Y, X)."""
        height, width = images.shape[1:]
        planes = np.stack([images, np.zeros_like(images)], axis=-1)
        if self._scale != 1:
            scaled_height, scaled_width = self._scaled((height, width))
            planes = np.stack([resize_image(each, Ly=scaled_height, Lx=scaled_width) for each in planes])
        one = len(planes) == 1
        output = run(self._network, planes[0])[np.newaxis] if one else run_many(self._network, planes)
        if self._scale != 1:
            output = np.stack([resize_image(each, Ly=height, Lx=width) for each in output])
        return np.ascontiguousarray(output.transpose(0, 3, 1, 2))

    def _cells(self, output: npt.NDArray[np.float32]) -> Labels:
        """Return the cells of any size in one image's outputs, shape (3, Y, X)."""
        return find_cells(output, self._config, self._scale, self._network.device)


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
    stored = read_model(folder)
    return CellposeModel(stored.network.to(target), stored.config, stored.diameter)
