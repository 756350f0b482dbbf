"""Which device a run computes on."""

import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.config import precision as formats


def found() -> list[str]:
    """Devices of this machine.

    Returns:
        "cpu", and "cuda:0 NVIDIA A100" and the like.
    """
    return ["cpu", *(f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count()))]


def choose(device: str) -> torch.device:
    """Turns a setting into a device.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        The device.

    Raises:
        InvalidArgument: The device is unknown, or CUDA is asked for and missing.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidArgument(f"device is {device!r}; allowed: auto, cpu, cuda.", "settings.device")
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise InvalidArgument(
            "device is CUDA, but this trainer finds no CUDA GPU; ask for AUTO or CPU.", "settings.device"
        )
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def half_precision(precision: str, device: torch.device) -> bool:
    """Says whether a training on this device computes in bfloat16.

    Args:
        precision: "auto", "float32" or "bfloat16".
        device: Where it computes.

    Returns:
        True for bfloat16, False for float32.

    Raises:
        InvalidArgument: It is "bfloat16" and the device has none.
    """
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return formats.choose(precision, device.type, capable=capable) == formats.BFLOAT16
