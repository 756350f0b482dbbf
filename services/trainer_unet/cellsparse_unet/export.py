"""U-Net models as files for other tools."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cellsparse_torch.files import example_images, write_onnx, write_torchscript
from cellsparse_trainer.contract import Exporter
from cellsparse_trainer.models.bioimage import Network, input_names, input_sentence, write_package
from cellsparse_trainer.models.outline_refinement import export_note
from cellsparse_unet.network import LEVELS, MULTIPLE, WEIGHTS_FILE, UNet, read_model

ELEPHANT_CHANNELS = 16
"""Base channels of ELEPHANT's network."""
_README = """# A U-Net after ELEPHANT

`{file}` is the state dict of ELEPHANT's `UNet.three_class_segmentation` for {images}{width}:

    import torch

    state = torch.load("{file}", weights_only=True)
    network = UNet.three_class_segmentation(is_eval=True, state_dict=state, is_3d={stacks})
{call}
Input: {channels}, percentiles {lower:g} and {upper:g} of the image scaled to 0 and 1 and values beyond them clipped,
{lengths}. Output: log-probabilities of background, outer and centre.
"""
_KEEP_AXIALS = """    output = network(image, torch.tensor([{keep}]))  # image: (1, 1, Z, Y, X)
"""

_OUTPUTS = """# A U-Net after ELEPHANT

The output channels are the probabilities that a pixel is background, the outer part of a cell or its centre. Pixels
whose centre probability is above {threshold:g} are cut into connected parts, one for each cell ({method}).
"""
_CITE = {
    "text": "Sugawara, K., Cevrim, C. & Averof, M. Tracking cell lineages in 3D by incremental deep learning. "
    "eLife 11, e69380 (2022).",
    "doi": "10.7554/eLife.69380",
}


class _Exponential(nn.Module):
    """Makes probabilities of log-probabilities: viewers of a package's output expect values from 0 to 1."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the exponentials of a tensor of any shape."""
        return values.exp()


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the state dict that ELEPHANT's `UNet.three_class_segmentation` takes, and how."""
    network, config, _, level = read_model(source)
    base, stacks = config.base_channels, config.dims == 3
    how = card["preprocessing"]
    keep = [number < config.flat_levels for number in range(LEVELS)]
    lengths = f"height and width multiples of {MULTIPLE}"
    text = _README.format(
        file=WEIGHTS_FILE,
        images="stacks" if stacks else "2D images",
        stacks=stacks,
        call=_KEEP_AXIALS.format(keep=keep) if stacks else "",
        lengths=f"depth a multiple of {network.multiples[0]}, {lengths}" if stacks else lengths,
        width=""
        if base == ELEPHANT_CHANNELS
        else f",\nbut with {base} in place of its {ELEPHANT_CHANNELS} base channels",
        channels=input_sentence(card),
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
    )
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    (target / "README.md").write_text(text + export_note(level))


def torchscript(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as TorchScript."""
    network = read_model(source).network
    write_torchscript(network, _example(network), target / "network.pt")


def onnx(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as ONNX, with any batch, height and width, and depth of stacks."""
    network = read_model(source).network
    write_onnx(network, _example(network), target / "network.onnx")


def bioimageio(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the content of a BioImage.IO package around the TorchScript network."""
    bare, _, thresholds, _ = read_model(source)
    run = write_torchscript(nn.Sequential(bare, _Exponential()), _example(bare), target / "network.pt")
    described = Network(
        title="U-Net",
        weights="torchscript",
        file="network.pt",
        framework={"pytorch_version": torch.__version__.partition("+")[0]},
        inputs=input_names(card),
        outputs=("background", "outer", "centre"),
        channels_last=False,
        multiple=MULTIPLE,
        cite=_CITE,
        documentation=_OUTPUTS.format(threshold=thresholds.centre_threshold, method=thresholds.method),
        depth_multiple=bare.multiples[0] if len(bare.multiples) == 3 else None,
    )
    write_package(target, card, described, run)


def _example(network: UNet) -> Tensor:
    depth = [2 * steps for steps in network.multiples[:-2]]
    return example_images(network.inputs, *depth, 64, 48)


EXPORTS: dict[str, Exporter] = {"native": native, "torchscript": torchscript, "onnx": onnx, "bioimageio": bioimageio}
