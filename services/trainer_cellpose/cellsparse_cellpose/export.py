"""Cellpose models as files for other tools."""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cellsparse_cellpose.model import CONFIG_FILE, MODEL_FILE, open_network
from cellsparse_trainer.contract import Exporter
from cellsparse_trainer.models.bioimage import Network, write_package

_README = """# A Cellpose model

Opens in stock Cellpose 3, here with the normalisation and the thresholds that it was trained and scored with:

    from cellpose.models import CellposeModel

    model = CellposeModel(pretrained_model="{file}")
    masks, flows, styles = model.eval(
        image,
        channels=[0, 0],
        diameter={diameter:.6g},
        normalize={{"percentile": [{lower:g}, {upper:g}]}},
        flow_threshold={flow:g},
        cellprob_threshold={cellprob:g},
        min_size={min_size},
    )
"""

_OUTPUTS = """# A Cellpose model

The network takes images whose cells have a diameter of {mean:g} pixels: scale yours by {mean:g} / D, where D is the
mean diameter of your cells ({diameter:.6g} pixels in the training images). Its second channel is zeros. Outputs are the
flows along y and x, times 5, and the logit of the cell probability. Cellpose's `dynamics.compute_masks` makes cells of
them, with cell probability threshold {cellprob:g} and flow threshold {flow:g}.
"""
_CITE = {
    "text": "Stringer, C., Wang, T., Michaelos, M. & Pachitariu, M. Cellpose: a generalist algorithm for cellular "
    "segmentation. Nature Methods 18, 100-106 (2021).",
    "doi": "10.1038/s41592-020-01018-x",
}
_OPSET = 17


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
    record = json.loads((source / CONFIG_FILE).read_text())
    how, config = card["preprocessing"], record["config"]
    text = _README.format(
        file=MODEL_FILE,
        diameter=record["diameter"],
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
        flow=config["flow_threshold"],
        cellprob=config["cellprob_threshold"],
        min_size=config["min_size"],
    )
    shutil.copyfile(source / MODEL_FILE, target / MODEL_FILE)
    (target / "README.md").write_text(text)


def torchscript(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as TorchScript."""
    torch.jit.save(_trace(_open(source)), target / "network.pt")  # type: ignore[no-untyped-call]


def onnx(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as ONNX, with any batch, height and width."""
    free = {0: "batch", 2: "y", 3: "x"}
    with warnings.catch_warnings():
        # PyTorch's newer exporter fixes sizes that this one leaves open.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            _open(source),
            (_example(),),
            target / "network.onnx",
            input_names=["image"],
            output_names=["output"],
            dynamic_axes={"image": free, "output": free},
            opset_version=_OPSET,
            dynamo=False,
        )


def bioimageio(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the content of a BioImage.IO package around the TorchScript network."""
    network = _trace(_open(source))
    torch.jit.save(network, target / "network.pt")  # type: ignore[no-untyped-call]

    def run(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            output: npt.NDArray[np.float32] = network(torch.from_numpy(image)).numpy()
        return output

    record = json.loads((source / CONFIG_FILE).read_text())
    config = record["config"]
    described = Network(
        title="Cellpose",
        weights="torchscript",
        file="network.pt",
        framework={"pytorch_version": torch.__version__.partition("+")[0]},
        inputs=("gray", "zeros"),
        outputs=("flow_y", "flow_x", "cellprob"),
        channels_last=False,
        multiple=2 ** (len(config["channels"]) - 1),
        cite=_CITE,
        documentation=_OUTPUTS.format(
            mean=config["mean_diameter"],
            diameter=record["diameter"],
            cellprob=config["cellprob_threshold"],
            flow=config["flow_threshold"],
        ),
    )
    write_package(target, card, described, run)


def _open(source: Path) -> nn.Module:
    return _Flows(open_network(source)).eval()


def _trace(network: nn.Module) -> Any:
    with torch.no_grad():
        return torch.jit.trace(network, _example())  # type: ignore[no-untyped-call]


def _example() -> Tensor:
    """Two images of other height than width: what the trace must not take for fixed."""
    return torch.rand(2, 2, 64, 48, generator=torch.Generator().manual_seed(0))


EXPORTS: dict[str, Exporter] = {"native": native, "torchscript": torchscript, "onnx": onnx, "bioimageio": bioimageio}
