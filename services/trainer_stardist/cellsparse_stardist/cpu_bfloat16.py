"""Steps and predictions in bfloat16 on CPUs that compute in it.

TensorFlow rewrites a graph so that convolutions, and what lies between them, compute in bfloat16 by way of oneDNN.
Weights, losses and the optimizer stay in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from cellsparse_stardist.framework import has_computed, tf
from cellsparse_trainer.config.precision import BFLOAT16, FLOAT32, choose_for_prediction
from cellsparse_trainer.processes.fork_check import passes_in_fork

_OPTION = "auto_mixed_precision_onednn_bfloat16"
_INSTRUCTIONS = {"amx_bf16", "avx512_bf16"}
_TRIAL_SECONDS = 20.0
_TOLERANCE = 0.02
"""Largest error of a convolution over its largest value; bfloat16 keeps 8 bits, so 0.004 is usual."""


@contextmanager
def bfloat16(wanted: bool) -> Iterator[None]:
    """Make the graphs that are called in the block compute in bfloat16, if wanted; else in float32."""
    if not wanted:
        yield
        return
    tf.config.optimizer.set_experimental_options({_OPTION: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_OPTION: False})


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether the CPU claims to compute in bfloat16, and does."""
    return _claims() and _tried_out()


def predicts_in_bfloat16(precision: str, device: str) -> bool:
    """Return whether a model predicts in bfloat16: on CPUs that compute in it.

    Args:
        precision: What it was trained in: "float32", "bfloat16", or "auto" where that is not recorded.
        device: Where it computes: "cpu" or "cuda".
    """
    capable = precision != FLOAT32 and device == "cpu" and cpu_has_bfloat16()
    return choose_for_prediction(precision, capable=capable) == BFLOAT16


def _claims(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether CPU and operating system list an instruction for it. Other CPUs emulate it, slower than float32."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(_INSTRUCTIONS & set(line.split()) for line in lines if line.startswith("flags"))


def _tried_out() -> bool:
    """Whether it gets a right result, in a process of its own if that can be.

    Virtual machines and sandboxes may list instructions that then end the process. A copy of this process takes a
    moment, but TensorFlow's threads are not copied: once it has computed anything here, a copy would wait for ever.
    """
    return _computes() if has_computed() else passes_in_fork(_computes, _TRIAL_SECONDS)


def _computes() -> bool:
    """Whether a convolution in bfloat16 gives what it gives in float32, up to its few digits, and not the same."""
    rng = np.random.default_rng(0)
    image = rng.random((1, 16, 16, 32), np.float32)
    kernel = rng.random((3, 3, 32, 32), np.float32) - 0.5
    convolved = tf.function(lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), autograph=False)
    wanted = convolved(image, kernel).numpy()
    with bfloat16(True):
        found = convolved(image, kernel).numpy()
    error = np.abs(found - wanted).max()
    return bool(0 < error <= _TOLERANCE * np.abs(wanted).max())
