"""How often the kernel's OOM killer has struck: distinguishes its kills from those by hand."""

from pathlib import Path

from cellsparse_common.cgroups import CGROUP, MOUNT, group_folders

_HOST = Path("/proc/vmstat")
_FILES = ("memory.events", "memory.oom_control")
"""Names in version 2 and 1 of control groups."""


def memory_kills(cgroup: Path = CGROUP, mount: Path = MOUNT, host: Path = _HOST) -> int:
    """Return the number of kills by the kernel's OOM killer so far; only the difference of two counts is meaningful.

    The kills are those in this process's memory cgroup (a container, a service) where the kernel exposes them, else
    those on the whole machine.

    Args:
        cgroup: File with this process's cgroups, one "hierarchy:controllers:/path" a line.
        mount: Where the cgroups are mounted; inside a container its own cgroup is the root.
        host: File with the machine's counters, one "name number" a line.

    Returns:
        The count; 0 where it is unknown.
    """
    groups = group_folders("memory", cgroup, mount)
    for path in (*(folder / name for folder in groups for name in _FILES), host):
        try:
            counts = dict(line.split(maxsplit=1) for line in path.read_text().splitlines() if " " in line)
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
