"""How often the kernel's OOM killer has struck: distinguishes its kills from those by hand."""

from pathlib import Path

_CGROUP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_HOST = Path("/proc/vmstat")


def memory_kills(cgroup: Path = _CGROUP, mount: Path = _MOUNT, host: Path = _HOST) -> int:
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
    for path in (*_group_files(cgroup, mount), host):
        try:
            counts = dict(line.split(maxsplit=1) for line in path.read_text().splitlines() if " " in line)
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _group_files(cgroup: Path, mount: Path) -> list[Path]:
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own = path.lstrip("/")
        if controllers == "":  # version 2
            files += [mount / own / "memory.events", mount / "memory.events"]
        elif "memory" in controllers.split(","):
            files += [mount / "memory" / own / "memory.oom_control", mount / "memory" / "memory.oom_control"]
    return files
