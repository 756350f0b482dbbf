import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from support.limits import PATIENCE

from cellsparse import errors, local_services
from cellsparse.cli.app import run

# Stands in for a service with a child: it says where it is, and answers nobody.
SERVICE = """
import json, os, pathlib, subprocess, sys, time
home = pathlib.Path(os.environ["CELLSPARSE_HOME"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
record = {"address": "127.0.0.1:1", "pid": os.getpid(), "child": child.pid}
(home / "orchestrator.json").write_text(json.dumps(record))
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def service(tmp_path, monkeypatch):
    """The command of a stand-in for the orchestrator."""
    (tmp_path / "cellsparse_standin.py").write_text(SERVICE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(local_services, "COMMAND", [sys.executable, "-m", "cellsparse_standin"])


def test_down_says_that_nothing_runs(home, capsys):
    assert run(["down"]) == 0
    assert "nothing runs" in capsys.readouterr().out


def test_an_orchestrator_that_ends_at_once_is_reported_with_its_log(home, monkeypatch, capsys):
    monkeypatch.setattr(local_services, "COMMAND", [sys.executable, "-c", "import sys; sys.exit('the port is in use')"])
    assert run(["up"]) == 4
    printed = capsys.readouterr().err
    assert "ended with code 1" in printed
    assert "the port is in use" in printed


def test_up_has_a_deadline_and_down_stops_children_too(home, service, monkeypatch):
    written = home / "orchestrator.json"
    # The time is over as soon as the stand-in has begun, however long that takes here.
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + written.exists() * PATIENCE, sleep=time.sleep)
    monkeypatch.setattr(local_services, "time", clock)
    with pytest.raises(errors.DeadlineExceeded, match=r"orchestrator\.log"):
        local_services.up(home, timeout=PATIENCE)
    record = json.loads(written.read_text())
    assert local_services.running(home) is not None
    assert local_services.down(home, timeout=1) == 2
    assert not any(psutil.pid_exists(record[name]) for name in ("pid", "child"))
    assert local_services.running(home) is None
    assert local_services.down(home) == 0


def test_down_finds_what_a_killed_orchestrator_left(home, service):
    home.mkdir()
    orphan = subprocess.Popen(local_services.COMMAND, env={**os.environ, "CELLSPARSE_HOME": str(home)})
    end = time.monotonic() + PATIENCE
    while not (home / "orchestrator.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    (home / "orchestrator.json").unlink()
    assert local_services.down(home, timeout=1) == 2
    orphan.wait(PATIENCE)


def test_the_process_id_of_somebody_else_is_left_alone(home):
    home.mkdir()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (home / "orchestrator.json").write_text(json.dumps({"address": "127.0.0.1:1", "pid": bystander.pid}))
        assert local_services.running(home) is None
        assert local_services.down(home) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(PATIENCE)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 1, "pid": "x"}'])
def test_an_unreadable_record_counts_as_none(home, content):
    home.mkdir()
    (home / "orchestrator.json").write_text(content)
    assert local_services.running(home) is None


def test_two_ups_at_once(home, service):
    with local_services._lock(home), pytest.raises(errors.FailedPrecondition, match="Another"):
        local_services.up(home, timeout=1)
