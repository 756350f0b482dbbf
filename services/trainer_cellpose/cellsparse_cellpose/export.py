"""Cellpose models as files for other tools."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cellsparse_cellpose.model import FEWEST_MEASURED, MOST_ENLARGED, MOST_REDUCED, SAME_SIZE
from cellsparse_cellpose.network import WEIGHTS_FILE, Stored, read_model
from cellsparse_torch.files import example_images, write_onnx, write_torchscript
from cellsparse_trainer.contract import Exporter
from cellsparse_trainer.models.bioimage import Network, input_names, write_package
from cellsparse_trainer.models.outline_refinement import export_note

_README = """# A Cellpose model

Opens in stock Cellpose 3, here with the normalisation and the thresholds that it was trained and scored with:

    from cellpose.models import CellposeModel
    from cellpose.utils import diameters

    model = CellposeModel(pretrained_model="{file}")

{image}    def segment(diameter):
        masks, flows, styles = model.eval(
            image,
            channels={channels},
            diameter=diameter,
            normalize={{"percentile": [{lower:g}, {upper:g}]}},
            flow_threshold={flow:g},
            cellprob_threshold={cellprob:g},
            min_size={min_size},
        )
        return masks

    diameter = {diameter:.6g}
    masks = segment(diameter)
{passes}"""
_PASSES = """    for _ in range({passes}):  # once more, with the size of this image's own cells
        size, each = diameters(masks)
        size = min(max(size, {smallest:.6g}), {largest:.6g}) if len(each) >= {fewest} else {diameter:.6g}
        if max(size, diameter) <= {same:g} * min(size, diameter):
            break
        diameter = size
        masks = segment(diameter)
"""
"""What `CellposeModel.segment` does."""

_OUTPUTS = """# A Cellpose model

The network takes images whose cells have a diameter of {mean:g} pixels: scale yours by {mean:g} / D, where D is the
mean diameter of your cells ({diameter:.6g} pixels in the training images). {second} Outputs are the
flows along y and x, times 5, and the logit of the cell probability. Cellpose's `dynamics.compute_masks` makes cells of
them, with cell probability threshold {cellprob:g} and flow threshold {flow:g}.
"""
_TWO, _ONE = "Its channels show cytoplasm and nuclei.", "Its second channel is zeros."
_CITE = {
    "text": "Stringer, C., Wang, T., Michaelos, M. & Pachitariu, M. Cellpose: a generalist algorithm for cellular "
    "segmentation. Nature Methods 18, 100-106 (2021).",
    "doi": "10.1038/s41592-020-01018-x",
}


class _Flows(nn.Module):
    """Stock Cellpose's network with its first output only: flows and cell probability."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.make_style = _Style()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Run the network on float32 (B, 2, Y, X); heights and widths are multiples of 8."""
        return cast(Tensor, self.network(image)[0])


class _Style(nn.Module):
    """Stock Cellpose's style vector, by a mean in place of a pooling as large as the image, which ONNX lacks."""

    def forward(self, features: Tensor) -> Tensor:
        """Return unit vectors (B, C) of features (B, C, Y, X)."""
        mean = features.mean((2, 3))
        return mean / mean.square().sum(1, keepdim=True).sqrt()


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the file that `CellposeModel(pretrained_model=...)` opens, and how."""
    how, (_, config, diameter, level) = card["preprocessing"], read_model(source)
    numbers = list(how.get("channels", ()))
    text = _README.format(
        file=WEIGHTS_FILE,
        channels=[1, 2] if numbers else [0, 0],
        image=f"    image = image[..., {numbers}]  # cytoplasm and nucleus\n\n" if numbers else "",
        diameter=diameter,
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
        flow=config.flow_threshold,
        cellprob=config.cellprob_threshold,
        min_size=config.min_size,
        passes=_passes(config.size_passes, diameter),
    )
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    (target / "README.md").write_text(text + export_note(level))


def _passes(passes: int, diameter: float) -> str:
    """Return the code that segments again at the size of the cells found; empty where the model does not."""
    if not passes:
        return ""
    return _PASSES.format(
        passes=passes,
        diameter=diameter,
        smallest=diameter / MOST_ENLARGED,
        largest=diameter * MOST_REDUCED,
        fewest=FEWEST_MEASURED,
        same=SAME_SIZE,
    )


def torchscript(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as TorchScript."""
    write_torchscript(_flows(read_model(source)), _example(), target / "network.pt")


def onnx(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as ONNX, with any batch, height and width."""
    write_onnx(_flows(read_model(source)), _example(), target / "network.onnx")


def bioimageio(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the content of a BioImage.IO package around the TorchScript network."""
    stored = read_model(source)
    config = stored.config
    run = write_torchscript(_flows(stored), _example(), target / "network.pt")
    described = Network(
        title="Cellpose",
        weights="torchscript",
        file="network.pt",
        framework={"pytorch_version": torch.__version__.partition("+")[0]},
        inputs=input_names(card) if config.plan.channels else ("gray", "zeros"),
        zeros=0 if config.plan.channels else 1,
        outputs=("flow_y", "flow_x", "cellprob"),
        channels_last=False,
        multiple=2 ** (len(config.channels) - 1),
        cite=_CITE,
        documentation=_OUTPUTS.format(
            mean=config.mean_diameter,
            second=_TWO if config.plan.channels else _ONE,
            diameter=stored.diameter,
            cellprob=config.cellprob_threshold,
            flow=config.flow_threshold,
        ),
    )
    write_package(target, card, described, run)


def _flows(stored: Stored) -> nn.Module:
    return _Flows(stored.network).eval()


def _example() -> Tensor:
    return example_images(2, 64, 48)


EXPORTS: dict[str, Exporter] = {"native": native, "torchscript": torchscript, "onnx": onnx, "bioimageio": bioimageio}
