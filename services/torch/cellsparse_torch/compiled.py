"""A network whose forward and backward pass are compiled by `torch.compile`.

Small networks on small crops wait for the launch of their many kernels. On a GPU the compiled pass has fewer kernels,
and CUDA graphs launch all of them at once. Each shape of batches is compiled by itself and for good, so that a resumed
training runs the same kernels as an uninterrupted one.
"""

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cellsparse_common.errors import InvalidArgument

COMPILERS = ("gcc", "clang")
"""What Triton, which writes the kernels, builds its launchers with."""
_FIELD = "settings.compile_step"


def compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Any]:
    """Return a function that computes, and differentiates, as a network does in training.

    Args:
        network: The network; weights are shared with it.
        device: Where it computes. On a CPU its operations are traced, but no code is made of them: that shows that the
            trace is right, which is all that tests need, and saves minutes.

    Raises:
        InvalidArgument: The device is a GPU and there is no C compiler; from the function, PyTorch could not compile.
    """
    if device.type == "cuda":
        _expect_compiler()
        run = torch.compile(network, mode="reduce-overhead", dynamic=False, fullgraph=True)
    else:
        run = torch.compile(network, backend="aot_eager", dynamic=False, fullgraph=True)

    def computed(images: Tensor) -> Any:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # takes a second to import

        try:
            return run(images)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            cause = getattr(error, "inner_exception", None)
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from error
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidArgument(
                f"compile_step is true, but PyTorch could not compile this network: {lines[0]}", _FIELD
            ) from error

    return computed


def _expect_compiler() -> None:
    named = os.environ.get("CC")
    if not any(shutil.which(name) for name in ((named,) if named else COMPILERS)):
        raise InvalidArgument(
            f"compile_step is true, but this trainer has no C compiler ({named or ' or '.join(COMPILERS)}), which "
            "PyTorch needs for it; install one, or leave the switch out.",
            _FIELD,
        )
