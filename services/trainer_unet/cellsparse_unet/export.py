"""U-Net models as files for other tools."""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cellsparse_trainer.contract import Exporter
from cellsparse_trainer.models.bioimage import Network, write_package
from cellsparse_unet.model import WEIGHTS, open_network, open_predictor
from cellsparse_unet.network import LEVELS, MULTIPLE, UNet

ELEPHANT_CHANNELS = 16
"""Base channels of ELEPHANT's network."""
_README = """# A U-Net after ELEPHANT

`{file}` is the state dict of ELEPHANT's `UNet.three_class_segmentation` for {images}{width}:

    import torch

    state = torch.load("{file}", weights_only=True)
    network = UNet.three_class_segmentation(is_eval=True, state_dict=state, is_3d={stacks})
{call}
Input: one channel, percentiles {lower:g} and {upper:g} of the image scaled to 0 and 1 and values beyond them clipped,
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
_OPSET = 17
_FIXED_ANSWER = "Converting a tensor to a Python boolean"
"""What the tracer remarks where group normalisation asks whether it has a single value."""


class _Exponential(nn.Module):
    """Makes probabilities of log-probabilities: viewers of a package's output expect values from 0 to 1."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the exponentials of a tensor of any shape."""
        return values.exp()


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the state dict that ELEPHANT's `UNet.three_class_segmentation` takes, and how."""
    network, config = open_network(source)
    base, stacks = config.base_channels, config.dims == 3
    how = card["preprocessing"]
    keep = [level < config.flat_levels for level in range(LEVELS)]
    lengths = f"height and width multiples of {MULTIPLE}"
    text = _README.format(
        file=WEIGHTS,
        images="stacks" if stacks else "2D images",
        stacks=stacks,
        call=_KEEP_AXIALS.format(keep=keep) if stacks else "",
        lengths=f"depth a multiple of {network.multiples[0]}, {lengths}" if stacks else lengths,
        width=""
        if base == ELEPHANT_CHANNELS
        else f",\nbut with {base} in place of its {ELEPHANT_CHANNELS} base channels",
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
    )
    shutil.copyfile(source / WEIGHTS, target / WEIGHTS)
    (target / "README.md").write_text(text)


def torchscript(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as TorchScript."""
    network = open_network(source)[0]
    torch.jit.save(_trace(network, _example(network)), target / "network.pt")  # type: ignore[no-untyped-call]


def onnx(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as ONNX, with any batch, height and width, and depth of stacks."""
    network = open_network(source)[0]
    free = {0: "batch", **dict(enumerate("zyx"[-len(network.multiples) :], 2))}
    with warnings.catch_warnings():
        # PyTorch's newer exporter fixes sizes that this one leaves open.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", _FIXED_ANSWER)
        torch.onnx.export(
            network,
            (_example(network),),
            target / "network.onnx",
            input_names=["image"],
            output_names=["output"],
            dynamic_axes={"image": free, "output": free},
            opset_version=_OPSET,
            dynamo=False,
        )


def bioimageio(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the content of a BioImage.IO package around the TorchScript network."""
    bare = open_network(source)[0]
    network = _trace(nn.Sequential(bare, _Exponential()), _example(bare))
    torch.jit.save(network, target / "network.pt")  # type: ignore[no-untyped-call]

    def run(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            output: npt.NDArray[np.float32] = network(torch.from_numpy(image)).numpy()
        return output

    cut = open_predictor(source, torch.device("cpu")).cut
    described = Network(
        title="U-Net",
        weights="torchscript",
        file="network.pt",
        framework={"pytorch_version": torch.__version__.partition("+")[0]},
        inputs=("gray",),
        outputs=("background", "outer", "centre"),
        channels_last=False,
        multiple=MULTIPLE,
        cite=_CITE,
        documentation=_OUTPUTS.format(threshold=cut.centre_threshold, method=cut.method),
        depth_multiple=bare.multiples[0] if len(bare.multiples) == 3 else None,
    )
    write_package(target, card, described, run)


def _trace(network: nn.Module, example: Tensor) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _FIXED_ANSWER)
        return torch.jit.trace(network, example)  # type: ignore[no-untyped-call]


def _example(network: UNet) -> Tensor:
    """Two images of other height than width: what the trace must not take for fixed."""
    depth = [2 * steps for steps in network.multiples[:-2]]
    return torch.rand(2, 1, *depth, 64, 48, generator=torch.Generator().manual_seed(0))


EXPORTS: dict[str, Exporter] = {"native": native, "torchscript": torchscript, "onnx": onnx, "bioimageio": bioimageio}
