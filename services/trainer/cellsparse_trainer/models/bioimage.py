"""BioImage.IO model packages, format 0.5, of any framework's network: the description and the test data."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.files import sha256_of
from cellsparse_common.imaging.images import normalize

_SIDE = 128
"""Height and width of the test image in pixels; a multiple of every network's step."""
_STACK_SIDE, _STACK_DEPTH = 64, 16
"""The least height and width of the test stack, and the fewest planes it has."""
_PAPER = {
    "text": "Sugawara, K. Training deep learning models for cell image segmentation with sparse annotations. "
    "bioRxiv 2023.06.13.544786 (2023).",
    "doi": "10.1101/2023.06.13.544786",
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network's description in a package."""

    title: str
    """Name of the tool that it belongs to."""
    weights: str
    """Kind of weights: "torchscript" or "tensorflow_saved_model_bundle"."""
    file: str
    """Name of the weights' file in the package."""
    framework: Mapping[str, str]
    """Version of the framework, under the name that the format requires."""
    inputs: tuple[str, ...]
    """Names of the input's channels, those of `zeros` last."""
    outputs: tuple[str, ...]
    """Names of the output's channels; its height and width are the input's."""
    channels_last: bool
    """True: axes of input and output are BYXC or BZYXC; False: BCYX or BCZYX."""
    multiple: int
    """Heights and widths must be multiples of this, pixels."""
    cite: Mapping[str, str]
    """"text" and "doi" of the tool's publication."""
    documentation: str
    """README.md: how outputs become cells."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the tool, under its own name."""
    zeros: int = 0
    """How many of the input's channels, the last ones, are zeros."""
    depth_multiple: int | None = None
    """Numbers of planes must be multiples of this; None: the network takes images, not stacks."""

    @property
    def space(self) -> str:
        """Axes of an image: "yx", or "zyx" for stacks."""
        return "yx" if self.depth_multiple is None else "zyx"


def write_package(
    folder: Path,
    card: Mapping[str, Any],
    network: Network,
    run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
) -> None:
    """Write description, documentation, test input and test output to where the weights are.

    Args:
        folder: Holds the weights already; becomes the content of the package.
        card: The model's card.
        network: What it is.
        run: The network: float32 to float32, in the axes of `network`.
    """
    how = card["preprocessing"]
    make = _test_image if network.depth_multiple is None else lambda seed: _test_stack(network, seed)
    channels = [make(seed) for seed in range(len(network.inputs) - network.zeros)]
    seen = [normalize(channel, how["lower_percentile"], how["upper_percentile"]) for channel in channels]
    np.save(folder / "test_input.npy", _tensor(channels, network))
    output = np.asarray(run(_tensor(seen, network)), np.float32)
    np.save(folder / "test_output.npy", output)
    (folder / "README.md").write_text(network.documentation + _validation(card["validation"]))
    # JSON is YAML, so no further library is needed to write the description.
    (folder / "rdf.yaml").write_text(json.dumps(_description(folder, card, network, output), indent=1) + "\n")


def input_names(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Return names for the image channels that a model's network gets: "gray" for one."""
    numbers, names = card["preprocessing"].get("channels", ()), card.get("channel_names") or ()
    if not numbers:
        return ("gray",)
    return tuple(names) if len(names) == len(numbers) else tuple(f"channel{number}" for number in numbers)


def input_sentence(card: Mapping[str, Any]) -> str:
    """Return what an exported network's input is, for a README."""
    numbers = card["preprocessing"].get("channels", ())
    if not numbers:
        return "one channel"
    listed = ", ".join(
        str(number) if name == str(number) else f"{number} ({name})"
        for number, name in zip(numbers, input_names(card), strict=True)
    )
    return f"the image's channels {listed} in this order, each scaled by itself"


def _description(
    folder: Path, card: Mapping[str, Any], network: Network, output: npt.NDArray[np.float32]
) -> dict[str, Any]:
    # The format allows a tolerance of up to 1 % of the largest value.
    tolerance = {"relative_tolerance": 1e-3, "absolute_tolerance": float(np.clip(0.005 * output.max(), 0, 1e-3))}
    steps = {"z": network.depth_multiple, "y": network.multiple, "x": network.multiple}
    sizes = {axis: {"min": steps[axis], "step": steps[axis]} for axis in network.space}
    same = {axis: {"tensor_id": "image", "axis_id": axis} for axis in network.space}
    return {
        "format_version": "0.5.4",
        "type": "model",
        "name": f"{network.title} {card['run_id']}",
        "description": f"{network.title} network for cell segmentation, trained by Cellsparse from sparse annotations.",
        "authors": [{"name": "Cellsparse"}],
        "license": "BSD-3-Clause",
        "cite": [_PAPER, dict(network.cite)],
        "documentation": "README.md",
        "tags": [
            f"{len(network.space)}d",
            "cells",
            "instance-segmentation",
            "sparse-annotations",
            network.title.lower(),
        ],
        "inputs": [
            {
                "id": "image",
                "axes": _axes(network.inputs, sizes, network.channels_last),
                "data": {"type": "float32"},
                "test_tensor": _file(folder, "test_input.npy"),
                "preprocessing": _preprocessing(card["preprocessing"], network.space),
            }
        ],
        "outputs": [
            {
                "id": "output",
                "axes": _axes(network.outputs, same, network.channels_last),
                "data": {"type": "float32"},
                "test_tensor": _file(folder, "test_output.npy"),
            }
        ],
        "weights": {network.weights: {**_file(folder, network.file), **network.framework}},
        "config": {
            "bioimageio": {"reproducibility_tolerance": [tolerance]},
            "cellsparse": {key: card[key] for key in ("backend", "run_id", "step")},
            **network.config,
        },
    }


def _validation(scores: Mapping[str, float]) -> str:
    lines = [f"- {name}: {value:.4g}\n" for name, value in sorted(scores.items())]
    return "\n## Validation\n\nScores on labelled pixels of the validation images:\n\n" + "".join(lines or ["- none\n"])


def _axes(channels: tuple[str, ...], sizes: Mapping[str, Any], channels_last: bool) -> list[dict[str, Any]]:
    space = [{"type": "space", "id": axis, "size": size} for axis, size in sizes.items()]
    channel = {"type": "channel", "channel_names": list(channels)}
    return [{"type": "batch"}, *([*space, channel] if channels_last else [channel, *space])]


def _preprocessing(how: Mapping[str, Any], space: str) -> list[dict[str, Any]]:
    percentiles = {"min_percentile": how["lower_percentile"], "max_percentile": how["upper_percentile"]}
    return [
        {"id": "scale_range", "kwargs": {"axes": list(space), **percentiles}},
        {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
    ]


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"source": name, "sha256": sha256_of(folder / name)}


def _test_image(seed: int = 0) -> npt.NDArray[np.float32]:
    """Bright discs on a dark, noisy ground: float32, axes YX."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:_SIDE, :_SIDE]
    image = rng.uniform(10, 30, (_SIDE, _SIDE))
    for y, x in np.mgrid[16:_SIDE:32, 16:_SIDE:32].reshape(2, -1).T:
        image[(ys - y) ** 2 + (xs - x) ** 2 < rng.integers(6, 12) ** 2] += rng.uniform(60, 200)
    return image.astype(np.float32)


def _test_stack(network: Network, seed: int = 0) -> npt.NDArray[np.float32]:
    """Bright balls on a dark, noisy ground: float32, axes ZYX, of a size that the network takes."""
    rng = np.random.default_rng(seed)
    depth, side = network.depth_multiple or 1, network.multiple
    shape = tuple(-(-n // step) * step for n, step in ((_STACK_DEPTH, depth), (_STACK_SIDE, side), (_STACK_SIDE, side)))
    zs, ys, xs = np.indices(shape)
    stack = rng.uniform(10, 30, shape)
    for y, x in np.mgrid[16:_STACK_SIDE:32, 16:_STACK_SIDE:32].reshape(2, -1).T:
        z, radius = rng.integers(4, shape[0] - 4), rng.integers(4, 10)
        stack[(zs - z) ** 2 + (ys - y) ** 2 + (xs - x) ** 2 < radius**2] += rng.uniform(60, 200)
    return stack.astype(np.float32)


def _tensor(channels: Sequence[npt.NDArray[np.float32]], network: Network) -> npt.NDArray[np.float32]:
    planes = np.zeros((1, len(network.inputs), *channels[0].shape), np.float32)
    planes[0, : len(channels)] = channels
    return np.ascontiguousarray(np.moveaxis(planes, 1, -1)) if network.channels_last else planes
