"""The network: ELEPHANT's three-class U-Net, module by module, so that weights move freely between the two.

Architecture: github.com/elephant-track/elephant-server, elephant-core/elephant/models.py (UNet). Four levels of two
convolutions, each followed by ReLU and group normalisation; max pooling down, nearest neighbour up, skip connections.
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cellsparse_common.errors import InvalidArgument
from cellsparse_torch.enlarged import convolve_enlarged
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.models.outline_refinement import OutlineLevel, read_level, without_level
from cellsparse_unet.config import Config
from cellsparse_unet.instances import Thresholds

WEIGHTS_FILE = "unet.pt"
"""The state dict, as ELEPHANT has it."""
LEVELS = 4
MULTIPLE: int = 2**LEVELS  # heights and widths that survive four halvings
CLASSES = 3
MAX_GROUPS = 32


def _groups(channels: int) -> int:
    """Return ELEPHANT's min(32, channels), lowered to the next divisor for widths it does not know."""
    return next(n for n in range(min(MAX_GROUPS, channels), 0, -1) if channels % n == 0)


class UNet(nn.Module):
    """Background, outer and centre log-probabilities of every pixel.

    With 16 base channels the state dict has the keys and shapes of ELEPHANT's `UNet.three_class_segmentation`, for
    images as with `is_3d=False`, for stacks as with `is_3d=True`. Its first levels may keep the number of planes;
    ELEPHANT takes these levels with every image as `keep_axials`. The state dict does not depend on them.

    Args:
        base_channels: Channels of the first level; each level below has twice as many.
        dims: 2 for images (axes YX), 3 for stacks (axes ZYX).
        flat_levels: How many levels, from the first, are halved in height and width only, 0 to 4; stacks only.
        inputs: Image channels, from 1; ELEPHANT's has one.
    """

    def __init__(self, *, base_channels: int = 16, dims: int = 2, flat_levels: int = 0, inputs: int = 1) -> None:
        super().__init__()
        self.steps: list[tuple[int, ...]] = [
            (2,) * dims if dims == 2 or level >= flat_levels else (1, 2, 2) for level in range(LEVELS)
        ]
        """By what each level is larger than the one below, along each axis."""
        self._conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv2d if dims == 2 else nn.Conv3d
        self.inputs = inputs
        """Image channels."""
        self.pool = F.max_pool2d if dims == 2 else F.max_pool3d
        width = [base_channels * 2**level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(
            self._block(before, after) for before, after in zip([inputs, *width], width[:-1], strict=False)
        )
        self.base = self._block(width[-2], width[-1])
        self.decoder = nn.ModuleList(
            self._block(width[level] + width[level + 1], width[level]) for level in reversed(range(LEVELS))
        )
        self.out_conv = self._conv(base_channels, CLASSES, 1)

    def _block(self, before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            self._conv(before, after, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.GroupNorm(_groups(after), after),
            self._conv(after, after, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.GroupNorm(_groups(after), after),
        )

    def _decoded(self, block: nn.Module, skip: Tensor, below: Tensor, step: tuple[int, ...]) -> Tensor:
        first, *others = block.children()
        # Exported networks keep ELEPHANT's own operations, and networks of stacks do in training, too.
        if not (self.training and isinstance(first, nn.Conv2d)):
            return cast(Tensor, block(torch.cat((skip, enlarged(below, step)), dim=1)))
        x = _joint_convolution(first, skip, below)
        for layer in others:
            x = layer(x)
        return x

    @property
    def multiples(self) -> tuple[int, ...]:
        """The numbers whose multiples an image's lengths must be, along each axis."""
        return tuple(math.prod(steps) for steps in zip(*self.steps, strict=True))

    def forward(self, image: Tensor) -> Tensor:
        """Classify every pixel.

        Args:
            image: Images in [0, 1], (B, C, Y, X) or (B, C, Z, Y, X), C is `inputs`; lengths as `multiples` says.

        Returns:
            Log-probabilities of background, outer and centre, (B, 3, ...).
        """
        x, skips = image, []
        for block, step in zip(self.encoder, self.steps, strict=True):
            x = block(x)
            skips.append(x)
            x = self.pool(x, step)
        x = self.base(x)
        for block, skip, step in zip(self.decoder, reversed(skips), reversed(self.steps), strict=True):
            x = self._decoded(block, skip, x, step)
        logits: Tensor = self.out_conv(x)
        # bfloat16 has too few digits for probabilities. No conversion may appear in exported networks.
        return F.log_softmax(logits if logits.dtype == torch.float32 else logits.float(), dim=1)


def _joint_convolution(convolution: nn.Conv2d, skip: Tensor, below: Tensor) -> Tensor:
    """Compute `convolution(cat(skip, enlarged(below, (2, 2))))` without making either, up to rounding.

    Args:
        convolution: The first one of a decoder's block: kernel 3 x 3, padding 1.
        skip: Features of the encoder, (B, C, Y, X).
        below: Features of the level below, (B, D, Y / 2, X / 2).
    """
    for_skip, for_below = convolution.weight[:, : skip.shape[1]], convolution.weight[:, skip.shape[1] :]
    out = F.conv2d(skip, for_skip, convolution.bias, padding=1)
    return out + convolve_enlarged(below, for_below)


def enlarged(x: Tensor, step: tuple[int, ...]) -> Tensor:
    """Repeat every pixel `step` times along each axis of features (B, C, ...)."""
    return F.interpolate(x, scale_factor=[float(times) for times in step], mode="nearest")


def flat_levels(plane_distance: float) -> int:
    """Return how many levels keep the planes of stacks, by ELEPHANT's rule.

    Each of these levels halves height and width only, so that below them voxels are about as deep as wide. The rule is
    `getNKeepAxials` of github.com/elephant-track/elephant-client and the limit of elephant-server's config.py: none
    below a distance of 2, from there the logarithm to base 2 of the nearest power of two, the larger one if two are
    equally near, and at most all four.

    Args:
        plane_distance: Distance of planes over the distance of pixels in a plane, above 0.

    Returns:
        Number of levels, 0 to 4.
    """
    if plane_distance < 2:
        return 0
    lower = math.frexp(plane_distance)[1] - 1
    return min(LEVELS, lower + (plane_distance >= math.ldexp(1.5, lower)))


class Stored(NamedTuple):
    """What a model's folder holds."""

    network: UNet
    """On the CPU, in evaluation mode."""
    config: Config
    thresholds: Thresholds
    outline_level: OutlineLevel | None
    """At which outlines are refined (see `outline_refinement`); None: they are not."""


def build_network(config: Config) -> UNet:
    """Return the network with fresh weights that depend on the seed only."""
    network = empty_network(config)
    initialise(network, config.plan.seed)
    return network


def empty_network(config: Config) -> UNet:
    """Return a network whose weights are yet to be set."""
    return UNet(
        base_channels=config.base_channels,
        dims=config.dims,
        flat_levels=config.flat_levels,
        inputs=config.plan.inputs,
    )


def read_model(folder: Path, weights: Mapping[str, Tensor] | None = None) -> Stored:
    """Read what `UnetModel.export` wrote.

    Args:
        folder: Holds `config.json`, and `unet.pt` unless weights are given.
        weights: The state dict to take instead.

    Raises:
        InvalidArgument: The files do not make a model.
        FileNotFoundError: A file is missing.
    """
    try:
        stored = ModelConfig.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config = Config.from_dict(stored.config)
        network = empty_network(config)
        if weights is None:
            weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
        return Stored(network.eval(), config, Thresholds(**without_level(stored.fitted)), read_level(stored.fitted))
    except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise InvalidArgument(f"{folder.name} holds no U-Net model: {error}") from error


def initialise(network: UNet, seed: int) -> None:
    """Draw the first weights as ELEPHANT does (Kaiming normal, zero biases), from a generator with its own seed.

    Args:
        network: Changed in place.
        seed: Any number; the same seed gives the same weights whatever the process drew before.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
