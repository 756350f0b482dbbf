"""Whether this machine's CPU computes in bfloat16 in hardware.

x86 CPUs do with the instructions AVX512_BF16 or AMX_BF16. Elsewhere torch emulates bfloat16, which is slower than
float32. Virtual machines and sandboxes may list instructions that then end the process, or compute nonsense, so what
the CPU claims is tried out once, in a process of its own.
"""

from functools import cache

import torch
from torch.nn import functional

from cellsparse_trainer.processes.fork_check import passes_in_fork

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
_TRIAL_SECONDS = 20.0
_TOLERANCE = 0.02
"""Largest error of a convolution over its largest value; bfloat16 keeps 8 bits, so 0.004 is usual."""


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether the CPU claims to compute in bfloat16, and does."""
    return _claims() and passes_in_fork(_computes_alone, _TRIAL_SECONDS)


def _claims() -> bool:
    """Whether CPU and operating system list an instruction for it, and torch was built to use it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    listed = torch.cpu.get_capabilities()
    return any(listed.get(name, False) for name in _INSTRUCTIONS)


def _computes_alone() -> bool:
    """Compute in a copy of this process."""
    torch.set_num_threads(1)  # those of torch's pool are not copied
    return _computes()


def _computes() -> bool:
    """Whether a convolution in bfloat16 gives what it gives in float32, up to its few digits."""
    random = torch.Generator().manual_seed(0)
    image, weight = torch.rand(1, 32, 16, 16, generator=random), torch.rand(32, 32, 3, 3, generator=random) - 0.5
    with torch.inference_mode():
        wanted = functional.conv2d(image, weight)
        found = functional.conv2d(image.bfloat16(), weight.bfloat16()).float()
    return bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
