"""The network: ELEPHANT's three-class U-Net, module by module, so that weights move freely between the two.

Architecture: github.com/elephant-track/elephant-server, elephant-core/elephant/models.py (UNet). Four levels of two
convolutions, each followed by ReLU and group normalisation; max pooling down, nearest neighbour up, skip connections.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

LEVELS = 4
MULTIPLE = 2**LEVELS  # heights and widths that survive four halvings
CLASSES = 3
MAX_GROUPS = 32


def _groups(channels: int) -> int:
    """ELEPHANT's min(32, channels), lowered to the next divisor for widths it does not know."""
    return next(n for n in range(min(MAX_GROUPS, channels), 0, -1) if channels % n == 0)


class UNet(nn.Module):
    """Background, outer and centre log-probabilities of every pixel.

    With 16 base channels the state dict has the keys and shapes of ELEPHANT's `UNet.three_class_segmentation`.

    Args:
        base_channels: Channels of the first level; each level below has twice as many.
        dims: 2 for images (axes YX), 3 for volumes (axes ZYX).
    """

    def __init__(self, *, base_channels: int = 16, dims: int = 2) -> None:
        super().__init__()
        self._conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv2d if dims == 2 else nn.Conv3d
        self._pool = F.max_pool2d if dims == 2 else F.max_pool3d
        width = [base_channels * 2**level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(
            self._block(before, after) for before, after in zip([1, *width], width[:-1], strict=False)
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

    def forward(self, image: Tensor) -> Tensor:
        """Classifies every pixel.

        Args:
            image: Images in [0, 1], (B, 1, Y, X) or (B, 1, Z, Y, X); every length a multiple of 16.

        Returns:
            Log-probabilities of background, outer and centre, (B, 3, ...).
        """
        x, skips = image, []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self._pool(x, 2)
        x = self.base(x)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(torch.cat((skip, F.interpolate(x, scale_factor=2.0, mode="nearest")), dim=1))
        return F.log_softmax(self.out_conv(x), dim=1)


def initialise(net: UNet, seed: int) -> None:
    """Draws the first weights as ELEPHANT does (Kaiming normal, zero biases), from a seed of its own.

    Args:
        net: The network, changed in place.
        seed: Any number; the same seed gives the same weights whatever the process drew before.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
