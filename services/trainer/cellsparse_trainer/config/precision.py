"""Which number format a training and a prediction compute in.

A run chooses once, when its first attempt starts, and keeps the choice: see `training.number_format`.
"""

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.config.settings import ProcessSettings

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"


def choose(precision: str, device: str, *, capable: bool) -> str:
    """Return the number format of a training's network.

    Args:
        precision: One of `plan.PRECISIONS`.
        device: Type of the device, "cpu" or "cuda".
        capable: Whether backend and device compute in bfloat16 in hardware, not by emulation, which is slow.

    Returns:
        "float32" or "bfloat16". What is asked for is obeyed; "auto" is bfloat16 where the device has it, unless the
        service's settings say float32.

    Raises:
        InvalidArgument: The precision is bfloat16, and the device does not support it.
    """
    if precision == BFLOAT16 and not capable:
        named = "CPU" if device == "cpu" else "GPU"
        raise InvalidArgument(
            f"precision is BFLOAT16, but this {named} does not compute in it; ask for AUTO or FLOAT32.",
            "settings.precision",
        )
    if precision == AUTO:
        return BFLOAT16 if capable and not float32_only() else FLOAT32
    return precision


def choose_for_prediction(precision: str, *, capable: bool) -> str:
    """Return the number format in which a model predicts.

    Args:
        precision: What the model was trained in; "auto" where its training did not record that.
        capable: Whether the device computes in bfloat16 in hardware.

    Returns:
        "float32" or "bfloat16". A model that was trained in float32 predicts in float32, as every model does where the
        service's settings say so.
    """
    return BFLOAT16 if precision != FLOAT32 and capable and not float32_only() else FLOAT32


def float32_only() -> bool:
    """Whether the service's settings forbid bfloat16 to everything that does not ask for it."""
    return ProcessSettings().precision == FLOAT32
