"""How many threads each process that trains or predicts has: its share of the CPUs that this service may use."""

import os
from collections.abc import Mapping

from cellsparse_common.cpus import limited_cpus, usable_cpus

THREAD_NAMES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NUMBA_NUM_THREADS")
"""Variables by which PyTorch, oneDNN and OpenBLAS, TensorFlow and Numba are told. Libraries read them as they load."""


def thread_counts(processes: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that tell libraries their number of threads.

    Args:
        processes: How many processes share the CPUs, from 1.
        environment: The service's variables. Those that it sets are left as they are.

    Returns:
        Variables to set besides those of the environment; none where one process has all CPUs that libraries see.
    """
    if processes == 1 and limited_cpus() is None:
        return {}
    each = str(max(1, usable_cpus() // processes))
    return {name: each for name in THREAD_NAMES if name not in environment}
