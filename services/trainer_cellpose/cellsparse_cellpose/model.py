"""Cellpose's network, and segmenting with it."""

import json
from collections.abc import Iterator, Sequence
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
from cellsparse_cellpose.instances import join_planes
from cellsparse_cellpose.tiles import images_per_batch, run, run_many
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.labels import without_small
from cellsparse_trainer.config.precision import BFLOAT16, choose
from cellsparse_trainer.data.samples import Sample

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


def half_precision(precision: str, device: torch.device) -> bool:
    """Say whether a training on this device computes in bfloat16.

    Args:
        precision: "auto", "float32" or "bfloat16".
        device: Where it computes.

    Raises:
        InvalidArgument: It is "bfloat16" and the device has none.
    """
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return choose(precision, device.type, capable=capable) == BFLOAT16


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
        return self._masks(self._outputs(image[np.newaxis])[0], self._config.min_size)

    def predict_stack(self, image: NDArray[np.float32]) -> NDArray[np.int32]:
        """Segment a stack plane by plane and join the cells of neighbouring planes (see `planes.join_planes`).

        Args:
            image: Values in [0, 1], shape (Z, Y, X), any size.

        Returns:
            Label image of the same shape: 0 background, 1 to n the cells, each of `min_size` voxels or more.
        """
        size = images_per_batch(*self._scaled(image.shape[1:]))

        def planes() -> Iterator[NDArray[np.int32]]:
            for start in range(0, len(image), size):
                for output in self._outputs(image[start : start + size]):
                    yield self._masks(output, min_size=0)

        stack = join_planes(planes(), image.shape, self._config.stitch_threshold)
        return without_small(stack, self._config.min_size)

    def tune(self, samples: Sequence[Sample]) -> None:
        """Keep the thresholds of the settings."""

    def export(self, folder: Path) -> None:
        """Write the file that stock Cellpose opens (`pretrained_model=`), and `config.json`."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self._network.state_dict().items()}
        torch.save(weights, folder / MODEL_FILE)
        record = {"config": json.loads(self._config.to_json()), "diameter": self._diameter, "versions": versions()}
        (folder / CONFIG_FILE).write_text(json.dumps(record, indent=1) + "\n")

    @property
    def _scale(self) -> float:
        return self._config.mean_diameter / self._diameter

    def _scaled(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width that the network sees of an image's."""
        return max(1, int(shape[0] * self._scale)), max(1, int(shape[1] * self._scale))

    def _outputs(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
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

    def _masks(self, output: NDArray[np.float32], min_size: int) -> NDArray[np.int32]:
        """Return the cells of one image's outputs, shape (3, Y, X)."""
        masks = dynamics.compute_masks(
            output[:2],
            output[2],
            niter=max(1, int(200 / self._scale)),
            cellprob_threshold=self._config.cellprob_threshold,
            flow_threshold=self._config.flow_threshold,
            device=self._network.device,
        )
        return _tidy(masks, min_size)


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
    filled: NDArray[np.int32] = utils.fill_holes_and_remove_small_masks(masks, min_size=-1).astype(np.int32)
    return without_small(filled, min_size)
