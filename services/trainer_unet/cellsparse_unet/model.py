"""The U-Net as a model that predicts, tunes its thresholds and exports itself."""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.disk_array import release, zeros
from cellsparse_common.imaging.scores import Segmentation, mean_per_cell
from cellsparse_common.imaging.types import Floats, Indices, Labels
from cellsparse_torch.devices import choose_device, predicts_in_bfloat16
from cellsparse_torch.files import write_state
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.data.fed_image import Box, FedImage
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.outline_refinement import OutlineLevel, fit_level, level_to_dict, refine
from cellsparse_trainer.models.windows import SIDE, boxes
from cellsparse_unet.config import Config
from cellsparse_unet.instances import Thresholds, default_thresholds, find_cells
from cellsparse_unet.network import WEIGHTS_FILE, Stored, UNet, read_model
from cellsparse_unet.tiles import flipped_probabilities, probabilities
from cellsparse_unet.tuning import best_thresholds


class UnetModel:
    """The model of the backend contract: a network and the thresholds that turn its output into cells.

    Args:
        network: Shared, not copied.
        config: The settings it was trained with.
        thresholds: None: the defaults of `config`.
        flips: Whether to predict with test-time flips, where `config` has them. Validations do without.
        half: Whether the network computes in bfloat16, on a CPU.
        outline_level: At which outlines are refined (see `outline_refinement`); None: they are not, until
            `fit_outlines`.
    """

    def __init__(
        self,
        network: UNet,
        config: Config,
        thresholds: Thresholds | None = None,
        *,
        flips: bool = True,
        half: bool = False,
        outline_level: OutlineLevel | None = None,
    ) -> None:
        self._network = network
        self._config = config
        self._flips = flips and config.test_flips
        self._half = half
        self._outline_level = outline_level
        self.thresholds = thresholds or default_thresholds(config)

    def predict(self, image: Floats) -> Labels:
        """Segment an image.

        Args:
            image: Axes that the network was trained on, YX or ZYX, with several channels YXC or ZYXC, any size,
                normalised to [0, 1].

        Returns:
            Label image, axes as the image's without channels: 0 background, 1 to n the cells.

        Raises:
            InvalidArgument: The image has other axes.
        """
        return self.segment(image).labels

    def segment(self, image: Floats) -> Segmentation:
        """Segment an image as `predict`, and score each cell: its mean probability of not being background."""
        found = self._probabilities(image)
        return self._found(image, found)

    def _found(self, image: Floats, probability: Floats) -> Segmentation:
        """Return the cells of an image, given the probabilities of the classes, the classes first."""
        labels = find_cells(probability, self.thresholds)
        scores = 1 - mean_per_cell(labels, probability[0])
        return refine(image, Segmentation(labels=labels, scores=scores), self._outline_level)

    def windows(self, image: FedImage) -> "UnetWindows":
        """Return a large image as windows, whose cells are those that `segment` finds in the whole.

        Its probabilities are kept on disk: group normalisation needs the whole image at every layer.
        """
        whole = zeros((*image.shape, image.channels) if image.channels else image.shape, np.float32)
        for box, _ in boxes(image.shape, SIDE, 0):
            whole[box[0] : box[1], box[2] : box[3]] = image.read(box)
            release(whole)
        return UnetWindows(self, image, self._probabilities(whole))

    def tune(self, samples: Sequence[Sample]) -> None:
        """Choose method and thresholds on labelled pixels; those that the settings fix stay.

        From here on, the model predicts with test-time flips, where its settings have them: the thresholds are theirs.

        Args:
            samples: Validation items, or training items where there are none.
        """
        self._flips = self._config.test_flips
        self._outline_level = None
        found = ((self._probabilities(sample.image), sample.label) for sample in samples)
        self.thresholds = best_thresholds(self._config, found)

    def fit_outlines(self, samples: Sequence[Sample]) -> None:
        """Fit the level of outlines, where `refine_outlines` is set and images are trained on."""
        self._outline_level = None
        if self._config.refine_outlines and self._config.dims == 2:
            self._outline_level = fit_level(samples, self.predict)

    def export(self, folder: Path) -> None:
        """Write `unet.pt` (the state dict) and `config.json` (settings and thresholds) into an existing folder."""
        write_state(self._network, folder / WEIGHTS_FILE)
        self.write_config(folder)

    def write_config(self, folder: Path) -> None:
        """Write `config.json` alone."""
        fitted = {**self.thresholds.to_dict(), **level_to_dict(self._outline_level)}
        stored = ModelConfig(config=self._config.to_dict(), fitted=fitted)
        (folder / CONFIG_FILE).write_text(stored.to_json(), encoding="utf-8")

    def _probabilities(self, image: Floats) -> Floats:
        dims = self._config.dims
        channels = self._config.plan.inputs
        if image.ndim != dims + (channels > 1) or (channels > 1 and image.shape[-1] != channels):
            axes = f"{'ZYX'[-dims:]}{'C' * (channels > 1)}"
            raise InvalidArgument(
                f"The image has shape {image.shape}; allowed for this model: axes {axes}, {channels} channel(s).",
                "image",
            )
        find = flipped_probabilities if self._flips else probabilities
        return find(self._prepared, image, half=self._half)

    @cached_property
    def _prepared(self) -> UNet:
        """The network for prediction: in bfloat16 a copy with channels last, which convolutions take in fewer steps."""
        if not self._half or self._config.dims != 2:
            return self._network
        copied: UNet = copy.deepcopy(self._network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return copied


class UnetWindows:
    """A large image as windows (see `cellsparse_trainer.models.windows`).

    Args:
        model: The model.
        image: The image.
        probability: Probabilities of background, outer and centre, axes (3, Y, X).
    """

    halo = 256
    """Pixels around a window in which neighbours compete with a cell."""

    def __init__(self, model: UnetModel, image: FedImage, probability: Floats) -> None:
        self._model, self._image, self._probability = model, image, probability

    def segment(self, box: Box) -> Segmentation:
        """Return the cells of a part of the image."""
        part = np.ascontiguousarray(self._probability[:, box[0] : box[1], box[2] : box[3]])
        release(self._probability)
        return self._model._found(self._image.read(box), part)

    def again(self, areas: Indices) -> bool:
        """Return False: sizes change nothing."""
        return False


def open_model(folder: Path, device: str) -> UnetModel:
    """Open what `UnetModel.export` wrote.

    Args:
        folder: Holds `unet.pt` and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The files do not make a model, or the device is missing.
        FileNotFoundError: A file is missing.
    """
    return loaded(read_model(folder), choose_device(device))


def loaded(stored: Stored, device: torch.device, *, flips: bool = True) -> UnetModel:
    """Return what a folder holds as a model on a device, in the number format that suits both."""
    network, config, thresholds, level = stored
    half = predicts_in_bfloat16(config.plan.precision, device)
    return UnetModel(network.to(device), config, thresholds, flips=flips, half=half, outline_level=level)
