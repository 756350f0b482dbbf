"""Threads of processes that train and predict, in a container whose quota is less than the node's CPUs."""

import json
import os
import sys

import pytest
from support.limits import PATIENCE

from cellsparse_common import cpus
from cellsparse_trainer.processes.fork_server import ForkServer
from cellsparse_trainer.processes.inference_environments import inference_environments
from cellsparse_trainer.processes.launch import Launch
from cellsparse_trainer.processes.thread_counts import THREAD_NAMES, thread_counts
from cellsparse_trainer.training import worker

OMP, OTHERS = THREAD_NAMES[0], THREAD_NAMES[1:]


@pytest.fixture(autouse=True)
def no_numbers(monkeypatch):
    for name in THREAD_NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def machine(monkeypatch, visible, quota):
    monkeypatch.setattr(cpus, "visible_cpus", lambda: visible)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)


@pytest.mark.parametrize(
    ("processes", "quota", "each"),
    [(1, None, None), (1, 64, None), (1, 4, "4"), (2, 4, "2"), (2, None, "32"), (3, 4, "1"), (100, None, "1")],
)
def test_processes_share_what_the_quota_gives(monkeypatch, processes, quota, each):
    machine(monkeypatch, 64, quota)
    assert thread_counts(processes, {}) == ({} if each is None else dict.fromkeys(THREAD_NAMES, each))


def test_what_the_environment_says_stays(monkeypatch):
    machine(monkeypatch, 64, 4)
    assert thread_counts(1, {OMP: "9"}) == dict.fromkeys(OTHERS, "4")


def test_trainings_and_predictions_get_it(monkeypatch):
    machine(monkeypatch, 64, 4)
    assert Launch().environment() == dict.fromkeys(THREAD_NAMES, "4")
    assert inference_environments(0, 0, {}) == [dict.fromkeys(THREAD_NAMES, "4")]
    assert inference_environments(2, 0, {}) == [dict.fromkeys(THREAD_NAMES, "2")] * 2
    assert inference_environments(0, 2, {})[1] == {**dict.fromkeys(THREAD_NAMES, "2"), "CUDA_VISIBLE_DEVICES": "1"}


def test_a_fork_server_loads_its_libraries_with_it(monkeypatch, tmp_path):
    """OpenMP reads its variable when it is loaded, which is before the server forks."""
    machine(monkeypatch, 64, 4)
    code = (
        "import json, os, pathlib\npathlib.Path(__file__).with_name('found').write_text(json.dumps(dict(os.environ)))\n"
    )
    (tmp_path / "noted_variables.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    server = ForkServer("noted_variables", PATIENCE)
    try:
        server.start([sys.executable, "-m", worker.__name__, "--help"], dict(os.environ)).wait()
        found = json.loads((tmp_path / "found").read_text())
    finally:
        server.close()
    assert {name: found.get(name) for name in THREAD_NAMES} == dict.fromkeys(THREAD_NAMES, "4")
