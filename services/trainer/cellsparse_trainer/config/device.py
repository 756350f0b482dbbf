"""The device of a training, and the one error for a device that is missing."""

from cellsparse_common.errors import InvalidArgument

AUTO, CPU, CUDA = "auto", "cpu", "cuda"


def missing_gpu() -> InvalidArgument:
    """Return the error for a training on CUDA where there is no CUDA GPU."""
    return InvalidArgument("device is CUDA, but this trainer finds no CUDA GPU; use AUTO or CPU.", "settings.device")


def choose(device: str, found: list[str]) -> str:
    """Return the type of the device that a training runs on, "cpu" or "cuda".

    Args:
        device: One of `plan.DEVICES`.
        found: Devices of this machine as `Backend.devices` lists them.

    Raises:
        InvalidArgument: `device` is "cuda", and there is no CUDA GPU.
    """
    has_gpu = any(name.startswith(CUDA) for name in found)
    if device == CUDA and not has_gpu:
        raise missing_gpu()
    return CUDA if has_gpu and device != CPU else CPU
