"""The environment of processes that train and predict; the libraries below Python read it when they start."""

from collections.abc import MutableMapping

DEFAULTS = {
    # OpenMP's threads otherwise spin for as long as they wait, and take the cores from the threads they wait for as
    # soon as the machine has other work.
    "GOMP_SPINCOUNT": "100000",
    # A step frees and asks for the same large blocks over and over. By default glibc gives them back to the kernel and
    # gets fresh pages, which the kernel clears, every time; it keeps them instead, in huge pages where it can.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What is set where the environment says nothing else. Other C libraries than glibc do not know these names."""


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what the environment leaves open; processes started from now on inherit it."""
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
