"""Whether this machine's CPU computes in bfloat16 in hardware.

x86 CPUs do with the instructions AVX512_BF16 or AMX_BF16. Elsewhere torch emulates bfloat16, which is slower than
float32. Virtual machines and sandboxes may list instructions that then end the process, or compute nonsense, so what
the CPU claims is tried out once, in a process of its own.
"""

import os
import signal
import time
import warnings
from functools import cache

import torch
from torch.nn import functional

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
_TRIAL_SECONDS = 20.0
_POLL_SECONDS = 0.005
_TOLERANCE = 0.02
"""Largest error of a convolution over its largest value; bfloat16 keeps 8 bits, so 0.004 is usual."""


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether the CPU claims to compute in bfloat16, and does."""
    return _claims() and _in_another_process()


def _claims() -> bool:
    """Whether CPU and operating system list an instruction for it, and torch was built to use it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    listed = torch.cpu.get_capabilities()
    return any(listed.get(name, False) for name in _INSTRUCTIONS)


def _in_another_process() -> bool:
    """Whether a copy of this process gets a right result; False where it crashes, hangs, or cannot be made."""
    try:
        with warnings.catch_warnings():  # of threads that the copy lacks: it needs none
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError:
        return False
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # those of torch's pool are not copied
            code = 0 if _computes() else 1
        finally:
            os._exit(code)
    deadline = time.monotonic() + _TRIAL_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(_POLL_SECONDS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _computes() -> bool:
    """Whether a convolution in bfloat16 gives what it gives in float32, up to its few digits."""
    random = torch.Generator().manual_seed(0)
    image, weight = torch.rand(1, 32, 16, 16, generator=random), torch.rand(32, 32, 3, 3, generator=random) - 0.5
    with torch.inference_mode():
        wanted = functional.conv2d(image, weight)
        found = functional.conv2d(image.bfloat16(), weight.bfloat16()).float()
    return bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
