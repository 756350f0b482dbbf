"""StarDist models from folders of the stock tool."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist.config import Config, resolve
from cellsparse_stardist.framework import use_device
from cellsparse_stardist.initial_model import fit
from cellsparse_stardist.instances import DEFAULT, Thresholds
from cellsparse_stardist.model import StardistModel
from cellsparse_stardist.network import empty_network
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.config.precision import FLOAT32
from cellsparse_trainer.models.outline_refinement import read_level

STOCK_PERCENTILES = (1.0, 99.8)
"""What StarDist's examples make 0 and 1."""
STOCK_CONFIG_FILE = "config.json"
"""The stock tool's own settings, in the folder with the weights."""
WEIGHTS = ("weights_best.h5", "weights_last.h5")
"""Weight files in the order in which they are taken."""
_FIXED: dict[str, Any] = {
    "n_dim": 2,
    "n_classes": None,
    "backbone": "unet",
    "unet_kernel_size": [3, 3],
    "unet_n_conv_per_depth": 2,
    "unet_pool": [2, 2],
    "unet_activation": "relu",
    "unet_last_activation": "relu",
    "unet_batch_norm": False,
    "unet_expansion": 2,
    "unet_prefix": "",
}
"""What stock StarDist can vary and this trainer's networks do not; a folder that lacks one means the same."""


def import_model(
    source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
) -> None:
    """Check a StarDist model folder and write it as `StardistModel.export` would.

    Args:
        source: The unpacked folder, or one that holds it.
        target: An empty folder.
        settings: Not used; a StarDist model needs no more than its folder.
        record: `config.json` of an export; None: settings that the folder does not hold are defaults.

    Raises:
        InvalidArgument: The files are no StarDist 2D model, or one of another architecture.
        ValueError: A setting is out of range, or weights have other shapes.
        OSError: The weights cannot be read.
    """
    folder = _folder(source)
    if record is None:
        config, level = _config(folder), None
    else:
        stored = ModelConfig.from_dict(record)
        config, level = Config.from_dict(stored.config), read_level(stored.fitted)
    thresholds = _thresholds(folder)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise InvalidArgument(f"The StarDist folder holds no weights; allowed: {' or '.join(WEIGHTS)}.", "file")
    check_self_contained(weights)
    use_device("auto")  # before the first network: else TensorFlow takes all of a GPU's memory, for good
    stock = empty_network(config)
    stock.keras_model.load_weights(str(weights))
    if not all(np.isfinite(array).all() for array in stock.keras_model.get_weights()):
        raise InvalidArgument("The file holds weights that are not finite.", "file")
    stock.thresholds = thresholds.to_dict()
    StardistModel(stock, config, level).export(target)


def check_self_contained(weights: Path) -> None:
    """Refuse an HDF5 file that points out of itself: reading it would open other files of this machine.

    Raises:
        InvalidArgument: A link, or the data of a dataset, lies in another file.
        OSError: The file is no HDF5 file.
    """
    with h5py.File(weights, "r") as file:
        groups: list[h5py.Group] = [file]
        seen = {h5py.h5o.get_info(file.id).addr}
        while groups:
            group = groups.pop()
            for name in group:
                # Keras writes hard links only, and each group once.
                found = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
                address = h5py.h5o.get_info(found.id).addr if found is not None else None
                plain = isinstance(found, h5py.Dataset) and not found.external and not found.is_virtual
                if isinstance(found, h5py.Group) and address not in seen:
                    seen.add(address)
                    groups.append(found)
                elif not plain:
                    raise InvalidArgument(
                        f"{weights.name} is no plain weights file: {name[:50]!r} points elsewhere.", "file"
                    )


def _folder(source: Path) -> Path:
    """Return the folder with the weights: the unpacked one or one in it."""
    if source.is_dir():
        names = {path.parent for path in sorted(source.rglob(STOCK_CONFIG_FILE))}
        if len(names) == 1:
            return names.pop()
    raise InvalidArgument(
        f"The file is no StarDist model: expected is a zip of one model folder with {STOCK_CONFIG_FILE}, {WEIGHTS[0]} "
        "and thresholds.json.",
        "file",
    )


def _config(folder: Path) -> Config:
    """Return our configuration of a stock one.

    Raises:
        InvalidArgument: The network is one that this trainer does not know.
    """
    found = _json(folder / STOCK_CONFIG_FILE)
    if found.get("n_dim", 2) != 2 or "Z" in str(found.get("axes", "YX")):
        raise InvalidArgument("The StarDist model is for stacks (3D); this trainer imports 2D models.", "file")
    for name, allowed in _FIXED.items():
        if found.get(name, allowed) != allowed:
            raise InvalidArgument(
                f"The StarDist model's {name} is {str(found[name])[:50]}; this trainer knows {allowed!r} only.", "file"
            )
    grid = found.get("grid", [1, 1])
    if not (isinstance(grid, list) and len(grid) == 2 and grid[0] == grid[1]):
        raise InvalidArgument(
            f"The StarDist model's grid is {str(grid)[:50]}; allowed: [1, 1], [2, 2], [4, 4].", "file"
        )
    inputs = found.get("n_channel_in", 1)
    if type(inputs) is not int or not 1 <= inputs <= MAX_CHANNELS:
        raise InvalidArgument(
            f"The StarDist model's n_channel_in is {str(inputs)[:50]}; allowed: 1 to {MAX_CHANNELS}.", "file"
        )
    numbers = {
        "n_rays": found.get("n_rays", 32),
        "grid": grid[0],
        "unet_depth": found.get("unet_n_depth", 3),
        "unet_filters": found.get("unet_n_filter_base", 32),
        "features": found.get("net_conv_after_unet", 128),
    }
    for name, number in numbers.items():
        if type(number) is not int:
            raise InvalidArgument(f"The StarDist model's {name} is {str(number)[:50]}; allowed: whole numbers.", "file")
    base = resolve(trainer_pb2.TrainingSettings(stardist=trainer_pb2.StardistSettings()), 1)
    unit = numbers["grid"] * 2 ** min(numbers["unet_depth"], 5) if numbers["grid"] in (1, 2, 4) else 16
    channels = tuple(range(inputs)) if inputs > 1 else ()
    # As the stock tool computes, and draws cells.
    crop_size = fit(base.plan.crop_size, max(unit, 1))
    plan = dataclasses.replace(base.plan, crop_size=crop_size, channels=channels, precision=FLOAT32)
    stock: dict[str, Any] = {"average_rays": False, "edge_margin": 2, "refine_outlines": False, "test_flips": False}
    return dataclasses.replace(base, plan=plan, **stock, **numbers)


def _thresholds(folder: Path) -> Thresholds:
    path = folder / "thresholds.json"
    found = _json(path) if path.is_file() else {}
    values = {"prob": found.get("prob", DEFAULT.prob), "nms": found.get("nms", DEFAULT.nms)}
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise InvalidArgument(
                f"The StarDist model's {name} threshold is {str(value)[:50]}; allowed: 0 to 1.", "file"
            )
    return Thresholds(**{name: float(value) for name, value in values.items()})


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{path.name} in the zip is no JSON: {error}.", "file") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path.name} in the zip holds no JSON object.", "file")
    return found
