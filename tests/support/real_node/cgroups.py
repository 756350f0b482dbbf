"""A node's groups of processes (cgroups, version 1), in which the kubelet limits its pods."""

import os
import time
from contextlib import suppress
from pathlib import Path

from support.limits import PATIENCE
from support.real_node.requirements import CGROUPS, CONTROLLERS


def group_name(number: int) -> str:
    """Return the name of a node's groups."""
    return f"cellsparse-node{number}"


def make_cgroups(number: int) -> list[Path]:
    """Make a node's group below each controller, and return their folders."""
    groups = [CGROUPS / controller / group_name(number) for controller in (*CONTROLLERS, "unified")]
    for group in groups:
        remove_cgroup(group)  # of a start that was killed
        if group.parent.name != "unified":  # containerd makes that one
            group.mkdir(exist_ok=True)
        if group.parent.name == "cpu":  # as much as a machine of its own; else all pods count as one process
            (group / "cpu.shares").write_text(str(1024 * (os.cpu_count() or 1)))
        if group.parent.name == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):  # an empty set takes no process
                (group / name).write_text((group.parent / name).read_text())
    return groups


def remove_cgroup(group: Path) -> None:
    """Remove a folder of cgroups whose processes have ended or are ending."""
    end = time.monotonic() + PATIENCE
    while group.is_dir() and time.monotonic() < end:
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            group.rmdir()
        time.sleep(0.1)
