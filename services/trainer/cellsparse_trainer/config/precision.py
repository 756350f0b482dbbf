"""Which number format a training computes in."""

from cellsparse_common.errors import InvalidArgument

FLOAT32, BFLOAT16 = "float32", "bfloat16"


def choose(precision: str, device: str, *, capable: bool) -> str:
    """Return the number format of the network's arithmetic.

    Args:
        precision: One of `plan.PRECISIONS`.
        device: Type of the device, "cpu" or "cuda".
        capable: Whether the device supports bfloat16 in hardware, not by emulation.

    Returns:
        "float32", or "bfloat16" where the device gains from it. CPUs do not: most emulate it, and some builds of the
        frameworks crash with an illegal instruction.

    Raises:
        InvalidArgument: The precision is bfloat16, and the device does not support it.
    """
    if precision == BFLOAT16 and device == "cpu":
        raise InvalidArgument(
            "precision is BFLOAT16, but the run is on a CPU, which trains in FLOAT32; ask for AUTO or FLOAT32.",
            "settings.precision",
        )
    if precision == BFLOAT16 and not capable:
        raise InvalidArgument(
            "precision is BFLOAT16, but this GPU does not compute in it; ask for AUTO or FLOAT32.", "settings.precision"
        )
    return BFLOAT16 if precision != FLOAT32 and device != "cpu" and capable else FLOAT32
