"""Cellpose-SAM's network as a model that segments and exports itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cellpose.vit import CPSAM
from scipy.special import expit

from cellsparse_cellpose_sam.config import Config
from cellsparse_cellpose_sam.instances import find_cells
from cellsparse_cellpose_sam.network import WEIGHTS_FILE, read_model
from cellsparse_cellpose_sam.tiles import run
from cellsparse_cellpose_sam.trainable import merged
from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.scores import Segmentation, mean_per_cell
from cellsparse_common.imaging.types import Floats, Labels
from cellsparse_torch.devices import choose_device
from cellsparse_torch.flows.planes import join_planes
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.data.samples import Sample


class CellposeSamModel:
    """The model of the backend contract: a network and its settings.

    Images go through it as they are: Cellpose-SAM learned cells of many sizes.

    Args:
        network: Shared, not copied; it may be in training.
        config: The settings it was trained with.
        diameter: Mean diameter in pixels of the cells that it was trained on, which its file keeps.
    """

    def __init__(self, network: CPSAM, config: Config, diameter: float) -> None:
        self._network = network
        self._config = config
        self._diameter = diameter

    def predict(self, image: Floats) -> Labels:
        """Segment an image as Cellpose 4 does, without normalising it again.

        Args:
            image: Values in [0, 1], shape (Y, X) or, with several channels, (Y, X, C), any size.

        Returns:
            Label image without channels: 0 background, 1 to n the cells.
        """
        return self.segment(image).labels

    def segment(self, image: Floats) -> Segmentation:
        """Segment an image as `predict`, and score each cell: its mean cell probability."""
        output = run(self._network, image)
        labels = without_small(self._cells(output), self._config.min_size)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, expit(output[2])))

    def segment_stack(self, image: Floats) -> Segmentation:
        """Segment a stack plane by plane and join the cells of neighbouring planes (see `planes.join_planes`).

        Args:
            image: Values in [0, 1], shape (Z, Y, X) or (Z, Y, X, C), any size.

        Returns:
            Label image without channels: 0 background, 1 to n the cells, each of `min_size` voxels or more. Scores as
            `segment`, over all planes of a cell.
        """
        probability = np.empty(image.shape[:3], np.float32)

        def planes() -> Iterator[Labels]:
            for z, plane in enumerate(image):
                output = run(self._network, plane)
                expit(output[2], out=probability[z])
                yield self._cells(output)

        stack = join_planes(planes(), image.shape[:3], self._config.stitch_threshold)
        labels = without_small(stack, self._config.min_size)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, probability))

    def tune(self, samples: Sequence[Sample]) -> None:
        """Keep the thresholds of the settings."""

    def export(self, folder: Path) -> None:
        """Write the file that stock Cellpose 4 opens (`pretrained_model=`), and `config.json`."""
        state = merged(self._network.state_dict())
        torch.save(
            {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, folder / WEIGHTS_FILE
        )
        self.write_config(folder)

    def write_config(self, folder: Path) -> None:
        """Write `config.json` alone."""
        stored = ModelConfig(config=self._config.to_dict(), fitted={"diameter": self._diameter})
        (folder / CONFIG_FILE).write_text(stored.to_json(), encoding="utf-8")

    def _cells(self, output: npt.NDArray[np.float32]) -> Labels:
        """Return the cells of any size in one image's outputs, shape (3, Y, X)."""
        return find_cells(output, self._config, self._network.device)


def open_model(folder: Path, device: str) -> CellposeSamModel:
    """Open what `CellposeSamModel.export` wrote.

    Args:
        folder: Folder with `cellpose_sam_model` and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
        ValueError: The files do not belong together.
    """
    target = choose_device(device)
    stored = read_model(folder)
    return CellposeSamModel(stored.network.to(target), stored.config, stored.diameter)
