"""Cellpose-SAM models as files for other tools."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cellpose.vit import CPSAM
from torch import Tensor, nn

from cellsparse_cellpose_sam.config import CROP, ENCODER
from cellsparse_cellpose_sam.network import WEIGHTS_FILE, read_model
from cellsparse_common.rpc.rules import weights_terms
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.files import example_images, write_torchscript
from cellsparse_trainer.contract import Exporter

_README = """# A Cellpose-SAM model

{opens}

    from cellpose.models import CellposeModel

    model = CellposeModel(pretrained_model="{file}", use_bfloat16=False)
    masks, flows, styles = model.eval(
        image,
        normalize={{"percentile": [{lower:g}, {upper:g}]}},
        flow_threshold={flow:g},
        cellprob_threshold={cellprob:g},
        min_size={min_size},
    )

{terms}
"""
_OPENS = (
    "Opens in stock Cellpose 4, here with the normalisation and the thresholds that it was trained and scored with:"
)
_OTHER_SIZE = (
    "Its encoder has another size than stock Cellpose's, which therefore does not open it. A network of its size would "
    "open like this:"
)


class _Flows(nn.Module):
    """Stock Cellpose's network with its first output only: flows and cell probability."""

    def __init__(self, network: CPSAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Run the network on float32 (B, 3, 256, 256)."""
        return cast(Tensor, self.network(image)[0])


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the file that `CellposeModel(pretrained_model=...)` opens, and how."""
    how, config = card["preprocessing"], read_model(source).config
    text = _README.format(
        opens=_OPENS if config.encoder == ENCODER else _OTHER_SIZE,
        file=WEIGHTS_FILE,
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
        flow=config.flow_threshold,
        cellprob=config.cellprob_threshold,
        min_size=config.min_size,
        terms=weights_terms(trainer_pb2.TrainingSettings.DESCRIPTOR.fields_by_name["cellpose_sam"]),
    )
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    (target / "README.md").write_text(text)


def torchscript(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the network as TorchScript, for tiles of 256 x 256 pixels."""
    network = _Flows(read_model(source).network).eval()
    write_torchscript(network, example_images(3, CROP, CROP), target / "network.pt")


EXPORTS: dict[str, Exporter] = {"native": native, "torchscript": torchscript}
