"""A trained network that segments images of any size."""

import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet.config import Config
from cellsparse_unet.instances import Cut, cells
from cellsparse_unet.network import UNet
from cellsparse_unet.tiles import probabilities
from cellsparse_unet.tuning import best_cut, default_cut

WEIGHTS, SETTINGS = "unet.pt", "config.json"


class Predictor:
    """The model of the backend contract: a network and the thresholds that turn its output into cells.

    Args:
        net: The network; shared, not copied.
        config: The settings it was trained with.
        cut: Thresholds; None: the defaults of `config`.
    """

    def __init__(self, net: UNet, config: Config, cut: Cut | None = None) -> None:
        self._net = net
        self._config = config
        self.cut = cut or default_cut(config)

    def predict(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Segments one image.

        Args:
            image: Axes that the network was trained on, YX or ZYX, any size, normalised to [0, 1].

        Returns:
            Label image, int32, axes as the image's: 0 background, 1 to n cells.

        Raises:
            InvalidArgument: The image has other axes.
        """
        dims = self._config.dims
        if image.ndim != dims:
            raise InvalidArgument(
                f"The image has {image.ndim} axes; allowed for this model: {dims} ({'ZYX'[-dims:]}).", "image"
            )
        return cells(probabilities(self._net, image), self.cut)

    def tune(self, samples: Sequence[Sample]) -> None:
        """Chooses method and thresholds on labelled pixels; what the settings fix stays.

        Args:
            samples: Validation items, or training items where there are none.
        """
        self.cut = best_cut(self._config, ((probabilities(self._net, s.image), s.label) for s in samples))

    def export(self, folder: Path) -> None:
        """Writes `unet.pt` (the state dict) and `config.json` (settings and thresholds).

        Args:
            folder: An existing folder.
        """
        state = {name: value.detach().cpu().contiguous().clone() for name, value in self._net.state_dict().items()}
        torch.save(state, folder / WEIGHTS)
        described = {"config": json.loads(self._config.to_json()), "cut": asdict(self.cut)}
        (folder / SETTINGS).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def open_predictor(folder: Path, device: torch.device) -> Predictor:
    """Opens what `Predictor.export` wrote.

    Args:
        folder: Holds `unet.pt` and `config.json`.
        device: Where to compute.

    Returns:
        The model with its thresholds.

    Raises:
        InvalidArgument: The files do not make a model.
        FileNotFoundError: A file is missing.
    """
    net, config, cut = _read(folder)
    return Predictor(net.to(device), config, cut)


def open_network(folder: Path) -> tuple[UNet, Config]:
    """Opens what `Predictor.export` wrote, without its thresholds.

    Args:
        folder: Holds `unet.pt` and `config.json`.

    Returns:
        The network, on the CPU and in evaluation mode, and its settings.

    Raises:
        InvalidArgument: The files do not make a model.
        FileNotFoundError: A file is missing.
    """
    net, config, _ = _read(folder)
    return net.eval(), config


def _read(folder: Path) -> tuple[UNet, Config, Cut]:
    try:
        described = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        config = Config.from_json(json.dumps(described["config"]))
        net = UNet(base_channels=config.base_channels, dims=config.dims, flat_levels=config.flat_levels)
        net.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
        return net, config, Cut(**described["cut"])
    except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise InvalidArgument(f"{folder.name} holds no U-Net model: {error}") from error
