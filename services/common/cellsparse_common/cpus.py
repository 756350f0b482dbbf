"""How many CPUs this process may use.

Libraries that compute with several threads go by the affinity mask only. A container's CPU limit is no mask: it is a
quota of time, on all CPUs of the node. More threads than the quota pays for use it up early in each period and then
wait for one another.
"""

import math
import os
from pathlib import Path

from cellsparse_common.cgroups import CGROUP, MOUNT, group_folders


def usable_cpus() -> int:
    """Return how many CPUs this process may use: the least of machine, affinity mask and quota, from 1."""
    return limited_cpus() or visible_cpus()


def limited_cpus() -> int | None:
    """Return `usable_cpus()` where a quota makes it less than libraries find by themselves; else None."""
    quota = cpu_quota()
    return quota if quota is not None and quota < visible_cpus() else None


def visible_cpus() -> int:
    """Return how many CPUs this process may run on, which is as many threads as libraries start."""
    machine = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return min(machine, len(os.sched_getaffinity(0)))
    return machine


def cpu_quota(cgroup: Path = CGROUP, mount: Path = MOUNT) -> int | None:
    """Return the CPUs that the quotas of this process's control groups pay for, rounded up.

    Args:
        cgroup: File with this process's groups.
        mount: Where the groups are mounted.

    Returns:
        The least of the group's own quota and those of the groups that it is in, from 1; None without any.
    """
    quotas = [quota for folder in group_folders("cpu", cgroup, mount) if (quota := _quota(folder)) is not None]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _quota(folder: Path) -> float | None:
    """Return the CPUs of one group's quota, of either version of control groups; None without one."""
    try:
        microseconds, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            microseconds = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        found = int(microseconds) / int(period)  # "max" and -1 are no quota
    except (ValueError, ZeroDivisionError):
        return None
    return found if found > 0 else None
