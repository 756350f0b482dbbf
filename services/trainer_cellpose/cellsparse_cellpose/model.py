"""Cellpose's network, and segmenting with it."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import fastremap
import numpy as np
import torch
from cellpose import dynamics, utils
from cellpose.resnet_torch import CPnet
from cellpose.transforms import resize_image
from numpy.typing import NDArray

from cellsparse_cellpose.config import Config
from cellsparse_cellpose.tiles import run
from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.samples import Sample

MODEL_FILE = "cellpose_model"
CONFIG_FILE = "config.json"


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter, by name."""
    return {name: version(name) for name in ("cellpose", "torch", "numpy")}


def find_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: It is "cuda" and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument("The device is 'cuda' but this trainer sees no CUDA GPU; use 'auto' or 'cpu'.", "device")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def build_network(config: Config) -> CPnet:
    """Return Cellpose's network with fresh weights that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.plan.seed)
        network = CPnet([2, *config.channels], 3, sz=3, mkldnn=False, diam_mean=config.mean_diameter)
    return network.to(memory_format=torch.channels_last)


class CellposeModel:
    """A network with its settings and the diameter of its cells."""

    def __init__(self, network: CPnet, config: Config, diameter: float) -> None:
        self._network = network
        self._config = config
        self._diameter = diameter

    def predict(self, image: NDArray[np.float32]) -> NDArray[np.int32]:
        """Segment an image as Cellpose does, without normalising it again.

        Args:
            image: Values in [0, 1], shape (Y, X), any size.

        Returns:
            Label image of the same shape: 0 background, 1 to n the cells.
        """
        scale = self._config.mean_diameter / self._diameter
        output = self._outputs(image, scale)
        masks = dynamics.compute_masks(
            output[:2],
            output[2],
            niter=max(1, int(200 / scale)),
            cellprob_threshold=self._config.cellprob_threshold,
            flow_threshold=self._config.flow_threshold,
            device=self._network.device,
        )
        return _tidy(masks, self._config.min_size)

    def tune(self, samples: Sequence[Sample]) -> None:
        """Keep the thresholds of the settings."""

    def export(self, folder: Path) -> None:
        """Write the file that stock Cellpose opens (`pretrained_model=`), and `config.json`."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self._network.state_dict().items()}
        torch.save(weights, folder / MODEL_FILE)
        record = {"config": json.loads(self._config.to_json()), "diameter": self._diameter, "versions": versions()}
        (folder / CONFIG_FILE).write_text(json.dumps(record, indent=1) + "\n")

    def _outputs(self, image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        """Return flows (y, x) times 5 and the logit of the cell probability, shape (3, Y, X)."""
        height, width = image.shape
        planes = np.stack([image, np.zeros_like(image)], axis=-1)
        if scale != 1:
            planes = resize_image(planes, Ly=max(1, int(height * scale)), Lx=max(1, int(width * scale)))
        output = run(self._network, planes)
        if scale != 1:
            output = resize_image(output, Ly=height, Lx=width)
        return np.ascontiguousarray(output.transpose(2, 0, 1))


def open_model(folder: Path, device: str) -> CellposeModel:
    """Open what `CellposeModel.export` wrote.

    Args:
        folder: Folder with `cellpose_model` and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        ValueError: The files do not belong together.
    """
    record = json.loads((folder / CONFIG_FILE).read_text())
    config = Config.from_json(json.dumps(record["config"]))
    target = find_device(device)
    return CellposeModel(open_network(folder).to(target), config, float(record["diameter"]))


def open_network(folder: Path) -> CPnet:
    """Open the network of what `CellposeModel.export` wrote, on the CPU.

    Raises:
        ValueError: The files do not belong together.
    """
    record = json.loads((folder / CONFIG_FILE).read_text())
    network = build_network(Config.from_json(json.dumps(record["config"])))
    network.load_state_dict(torch.load(folder / MODEL_FILE, map_location="cpu", weights_only=True))
    return network


def _tidy(masks: NDArray[np.generic], min_size: int) -> NDArray[np.int32]:
    """Fill holes and drop small cells.

    Stock Cellpose counts sizes by rank although labels have gaps after the flow check, so it may drop a neighbour of a
    small cell; labels are therefore made consecutive first, and sizes are counted here.
    """
    masks, _ = fastremap.renumber(masks, in_place=False)
    masks = utils.fill_holes_and_remove_small_masks(masks, min_size=-1).astype(np.int32)
    sizes = np.bincount(masks.ravel())
    keep = sizes >= max(1, min_size)
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(numbers[masks], np.int32)
