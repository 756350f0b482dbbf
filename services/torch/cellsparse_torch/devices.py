"""Which device torch computes on, and in which number format."""

import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_torch.cpu_bfloat16 import cpu_has_bfloat16
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


def has_bfloat16(device: str) -> bool:
    """Return whether the device that a setting means computes in bfloat16 in hardware.

    Args:
        device: As for `choose_device`.

    Raises:
        InvalidArgument: As for `choose_device`.
    """
    if choose_device(device).type == "cpu":
        return cpu_has_bfloat16()
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def half_precision(precision: str, device: torch.device) -> bool:
    """Return whether a training on this device computes in bfloat16.

    Args:
        precision: "auto", "float32" or "bfloat16".
        device: Where it computes.

    Raises:
        InvalidArgument: It is "bfloat16" and the device has none.
    """
    capable = precision != formats.FLOAT32 and has_bfloat16(device.type)
    return formats.choose(precision, device.type, capable=capable) == formats.BFLOAT16


def predicts_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether a model predicts in bfloat16: on CPUs that compute in it.

    Args:
        precision: What it was trained in: "float32", "bfloat16", or "auto" where that is not recorded.
        device: Where it computes.
    """
    capable = precision != formats.FLOAT32 and device.type == "cpu" and has_bfloat16(device.type)
    return formats.choose_for_prediction(precision, capable=capable) == formats.BFLOAT16
