"""Environment variables of processes that train and predict; native libraries read them when they start."""

from collections.abc import Mapping, MutableMapping

DEFAULTS = {
    # By default OpenMP's threads spin while they wait. As soon as the machine has other work, they take the cores
    # from the threads that they wait for.
    "GOMP_SPINCOUNT": "100000",
    # Every step frees and allocates the same large blocks. By default glibc gives them back to the kernel and
    # gets fresh pages, which the kernel clears, every time; it keeps them instead, in huge pages where it can.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Variables to set unless the environment has them. C libraries other than glibc ignore these names."""


def prepare(environment: MutableMapping[str, str], own: Mapping[str, str]) -> None:
    """Set the variables that are missing; processes started from now on inherit them.

    Args:
        environment: Gets them.
        own: A backend's (see `BackendSpec.environment`), which replace those of `DEFAULTS`.
    """
    for name, value in {**DEFAULTS, **own}.items():
        environment.setdefault(name, value)
