"""Where the kernel tells what this process's control groups may use: those of its container or service."""

from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def group_folders(controller: str, cgroup: Path = CGROUP, mount: Path = MOUNT) -> Iterator[Path]:
    """Yield the folders of this process's groups for a controller, each group before the one that it is in.

    Some of them may not exist: a container sees its own group as the root, but may be told its path on the node.

    Args:
        controller: Name such as "cpu" or "memory".
        cgroup: File with this process's groups, one "hierarchy:controllers:/path" a line.
        mount: Where the groups are mounted.
    """
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # version 2
            roots = [mount]
        elif controller in controllers.split(","):
            roots = [mount / controller]
            if controllers != controller:
                roots.append(mount / controllers)
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        if ".." in parts:  # a group outside of what is mounted here
            parts = ()
        for root in roots:
            yield from (root.joinpath(*parts[:end]) for end in range(len(parts), -1, -1))
