import itertools
import json
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from support.limits import PATIENCE

from cellsparse import errors, local_services
from cellsparse.cli.app import run
from cellsparse_proto.v1 import orchestrator_pb2

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
    # The time is over as soon as the stand-in has begun, however long that takes here. The first look at the clock sets
    # the deadline.
    looks = itertools.count()
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + (next(looks) > 0 and written.exists()) * PATIENCE, sleep=time.sleep
    )
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


@pytest.fixture
def taken():
    """A TCP port that something else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def web_port(home, asked=None):
    return local_services._environment(home, 0, asked).get("CELLSPARSE_WEB_PORT")


def test_the_page_takes_its_usual_port_in_the_default_home_only(home, taken, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    monkeypatch.setattr(local_services, "WEB_PORT", free)
    monkeypatch.setattr(local_services.Path, "home", lambda: home.parent)
    monkeypatch.setattr(local_services, "DEFAULT_HOME", home.name)
    assert web_port(home) == str(free)
    assert web_port(home.parent / "second") not in (str(free), "0")
    monkeypatch.setattr(local_services, "WEB_PORT", taken)
    assert web_port(home) not in (str(taken), "0")


def test_the_page_comes_back_at_the_port_it_had(home, taken):
    (home / "services").mkdir(parents=True)
    address = home / "services" / "gateway.address"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        last = probe.getsockname()[1]
    address.write_text(f"127.0.0.1:{last}")
    assert web_port(home) == str(last)
    address.write_text(f"127.0.0.1:{taken}")  # by a stranger now
    assert web_port(home) != str(taken)
    address.write_text("nonsense")
    assert int(web_port(home)) > 0


def test_a_web_port_that_was_asked_for_is_taken_or_refused(home, taken):
    with pytest.raises(errors.FailedPrecondition, match=f"Port {taken} is in use; --web-port"):
        web_port(home, taken)
    assert int(web_port(home, 0)) > 0


def test_a_variable_names_the_port_and_certificates_leave_the_page_out(home, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_TLS_CLIENT_CA", "ca.pem")
    assert web_port(home) is None
    assert int(web_port(home, 0)) > 0
    monkeypatch.delenv("CELLSPARSE_TLS_CLIENT_CA")
    monkeypatch.setenv("CELLSPARSE_WEB_PORT", "1234")
    assert web_port(home) == "1234"


def test_without_its_package_there_is_no_page(home, monkeypatch):
    monkeypatch.setattr(local_services, "GATEWAY", "cellsparse_absent")
    assert web_port(home) is None


@pytest.mark.parametrize(
    ("address", "healthy", "url"),
    [
        ("127.0.0.1:8000", True, "http://127.0.0.1:8000/"),
        ("0.0.0.0:8001", True, "http://127.0.0.1:8001/"),
        ("127.0.0.1:8000", False, ""),
        ("", True, ""),
    ],
)
def test_the_address_of_the_page(address, healthy, url):
    gateway = orchestrator_pb2.ServiceStatus(name="gateway", address=address, healthy=healthy)
    assert local_services.page_url(orchestrator_pb2.GetStatusResponse(services=[gateway])) == url


def test_open_opens_the_page_and_prints_its_address(monkeypatch, capsys):
    gateway = orchestrator_pb2.ServiceStatus(name="gateway", address="127.0.0.1:8000", healthy=True)
    status = orchestrator_pb2.GetStatusResponse(services=[gateway])
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or False)
    monkeypatch.setattr("cellsparse.client.Client.status", lambda *_, **__: status)
    assert run(["open", "--address", "127.0.0.1:1"]) == 0
    assert opened == ["http://127.0.0.1:8000/"]
    printed = capsys.readouterr()
    assert printed.out.strip() == "http://127.0.0.1:8000/"
    assert "no browser was found" in printed.err
    del status.services[:]
    assert run(["open", "--address", "127.0.0.1:1"]) == 4
    assert "The page does not answer" in capsys.readouterr().err
