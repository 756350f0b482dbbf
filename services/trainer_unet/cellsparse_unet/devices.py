"""Which device a run computes on."""

import torch

from cellsparse_common.errors import InvalidArgument


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
