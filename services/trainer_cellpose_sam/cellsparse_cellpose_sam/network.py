"""Cellpose-SAM's network: stock Cellpose's own, read from a model's folder; of other sizes also with fresh weights."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from cellpose.vit import CPSAM
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from cellsparse_cellpose_sam.config import CROP, ENCODER, Config
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE

WEIGHTS_FILE = "cellpose_sam_model"
"""The file that stock Cellpose 4 opens (`pretrained_model=`)."""
PATCH = 8
"""Pixels along each side of a token."""
OUTPUTS = 3
"""Flows along y and x, and the logit of the cell probability."""
STOCK_DIAMETER = 30.0

_FEATURES = 256
"""Channels of the encoder's neck."""
_SAM_GRID, _SAM_WINDOW = 64, 14
"""Tokens along each side of Segment Anything's images and of its windows; they size the relative positions."""


class Stored(NamedTuple):
    """What a model's folder holds."""

    network: CPSAM
    """On the CPU."""
    config: Config
    diameter: float
    """Mean diameter in pixels of the cells that the network was trained on."""


def build_network(config: Config) -> CPSAM:
    """Return a network with fresh weights that depend on the seed only."""
    network = empty_network(ENCODER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.plan.seed)
        network.encoder = _encoder(config.encoder)
        network.out = nn.Conv2d(_FEATURES, OUTPUTS * PATCH**2, kernel_size=1)
    pixels = torch.eye(OUTPUTS * PATCH**2).reshape(OUTPUTS * PATCH**2, OUTPUTS, PATCH, PATCH)
    network.W2 = nn.Parameter(pixels, requires_grad=False)
    for name in ("diam_mean", "diam_labels"):
        setattr(network, name, nn.Parameter(torch.tensor([STOCK_DIAMETER]), requires_grad=False))
    return network


def empty_network(encoder: tuple[int, int, int]) -> CPSAM:
    """Return a network without memory for its weights, on the meta device; `load_state_dict(assign=True)` fills it.

    Args:
        encoder: Depth, width and heads.
    """
    with torch.device("meta"):
        network = CPSAM(rdrop=0.0)
        if encoder != ENCODER:
            network.encoder = _encoder(encoder)
    return network


def read_model(folder: Path, weights: Mapping[str, Tensor] | None = None) -> Stored:
    """Read what `CellposeSamModel.export` wrote.

    Args:
        folder: Holds `config.json`, and `cellpose_sam_model` unless weights are given.
        weights: The state dict to take instead.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The files do not belong together.
    """
    stored = ModelConfig.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config = Config.from_dict(stored.config)
    if weights is None:
        weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
    network = empty_network(config.encoder)
    network.load_state_dict(weights, assign=True)
    return Stored(network, config, float(stored.fitted["diameter"]))


def _encoder(shape: tuple[int, int, int]) -> ImageEncoderViT:
    """Return an encoder whose weights have the names and shapes that stock Cellpose makes of Segment Anything's.

    Every fourth part of the blocks ends with one that Segment Anything gave global attention. Cellpose-SAM gives it to
    all, and what is left of the difference is the size of their relative positions.
    """
    depth, width, heads = shape
    encoder = ImageEncoderViT(
        img_size=_SAM_GRID * PATCH,
        patch_size=PATCH,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        out_chans=_FEATURES,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=_SAM_WINDOW,
        global_attn_indexes=tuple((part + 1) * depth // 4 - 1 for part in range(4)),
    )
    encoder.pos_embed = nn.Parameter(torch.zeros(1, CROP // PATCH, CROP // PATCH, width))
    for block in encoder.blocks:
        block.window_size = 0
    return encoder
