"""What a real node needs of the machine."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from support.control_plane import BIN, find_programs

PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
"""Debian's package of each program."""
CNI_PLUGINS = Path("/usr/lib/cni")
PROGRAMS = ("kubelet", "kube-proxy", "coredns", "netpol")
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")


def what_is_missing() -> str:
    """Return in a sentence why no node can run here; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "A real node needs Linux and root."
    packages = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    if not (CNI_PLUGINS / "ptp").exists():
        packages.add("containernetworking-plugins")
    if packages:
        return f"A real node needs the packages {', '.join(sorted(packages))}."
    if absent := [name for name in CONTROLLERS if not (CGROUPS / name).is_dir()]:
        return f"A real node needs version 1 of cgroups, with the controllers {', '.join(absent)}."
    if absent := [name for name in PROGRAMS if not (BIN / name).exists()]:
        return f"{', '.join(absent)} are not built; `make node-tools` builds them where Go is installed."
    return ""


def find_requirements() -> None:
    """Skip the test where no node can run."""
    find_programs()
    if reason := what_is_missing():
        pytest.skip(reason)
