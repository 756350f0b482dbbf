"""The device of a training, and the one error for a device that is missing."""

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.config.plan import GPU_SWITCHES, Plan

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


def check_switches(plan: Plan, device: str) -> None:
    """Check that what is switched on can work on a device.

    Args:
        plan: The run's.
        device: Its type, "cpu" or "cuda".

    Raises:
        InvalidArgument: A switch of `GPU_SWITCHES` is on, and the device is no GPU.
    """
    for name in GPU_SWITCHES if device == CPU else ():
        if getattr(plan, name):
            raise InvalidArgument(
                f"{name} is true, but this training runs on the CPU, and the switch is for CUDA GPUs; leave it out.",
                f"settings.{name}",
            )
