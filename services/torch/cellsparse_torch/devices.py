"""Which device torch computes on, and in which number format."""

import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.config import precision as formats
from cellsparse_trainer.config.device import missing_gpu
from cellsparse_trainer.config.plan import DEVICES


def devices() -> list[str]:
    """Return the devices of this machine, such as "cpu" and "cuda:0 NVIDIA A100"."""
    return ["cpu", *(f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count()))]


def choose_device(name: str) -> torch.device:
    """Return the device that a setting means.

    Args:
        name: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The name is unknown, or CUDA is asked for and missing.
    """
    if name not in DEVICES:
        raise InvalidArgument(f"device is {name!r}; allowed: {', '.join(DEVICES)}.", "settings.device")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise missing_gpu()
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def half_precision(precision: str, device: torch.device) -> bool:
    """Return whether a training on this device computes in bfloat16.

    Args:
        precision: "auto", "float32" or "bfloat16".
        device: Where it computes.

    Raises:
        InvalidArgument: It is "bfloat16" and the device has none.
    """
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return formats.choose(precision, device.type, capable=capable) == formats.BFLOAT16
