"""How many CPUs a process may use: machine, affinity mask and quota, of both versions of control groups."""

import os
from pathlib import Path

import pytest

from cellsparse_common import cpus


def group(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def quota(root: Path, cgroup: str, files: dict[str, str]) -> int | None:
    group(root / "mount", files)
    (root / "cgroup").write_text(cgroup)
    return cpus.cpu_quota(root / "cgroup", root / "mount")


@pytest.mark.parametrize(
    ("cgroup", "files", "found"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # rounded up
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("", {"cpu.max": "200000 100000\n"}, None),
        # a service's own group, and the tighter quota of one that it is in
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "300000 100000\n", "cpu.max": "max 100000"}, 3),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "max 100000", "a.slice/cpu.max": "50000 20000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "800000 100000", "cpu.max": "700000 100000"}, 4),
        # a container that is told its path on the node, or one outside of what it sees
        ("0::/kubepods/pod1/c\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/../other\n", {"cpu.max": "200000 100000"}, 2),
        # version 1
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "1000000"},
            1,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:memory:/\n", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (
            "4:cpu:/docker/ab\n0::/\n",
            {
                "cpu/docker/ab/cpu.cfs_quota_us": "400000\n",
                "cpu/docker/ab/cpu.cfs_period_us": "100000\n",
                "cpu/docker/cpu.cfs_quota_us": "200000\n",
                "cpu/docker/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        # nonsense is no quota
        ("0::/\n", {"cpu.max": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("nonsense\n", {"cpu.max": "max max\n"}, None),
    ],
)
def test_the_quota_of_control_groups(tmp_path, cgroup, files, found):
    assert quota(tmp_path, cgroup, files) == found


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpus.cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("machine", "mask", "paid", "usable", "limited"),
    [(8, 8, None, 8, None), (8, 4, 6, 4, None), (8, 8, 2, 2, 2), (2, 8, 4, 2, None), (8, 4, 4, 4, None)],
)
def test_the_least_of_machine_mask_and_quota(monkeypatch, machine, mask, paid, usable, limited):
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(mask)), raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: paid)
    assert (cpus.usable_cpus(), cpus.limited_cpus()) == (usable, limited)


def test_a_system_without_masks_has_the_whole_machine(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpus.visible_cpus() == 1
