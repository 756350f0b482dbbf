"""The command as a real process: signals and a dying orchestrator."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.limits import PATIENCE, QUICK

from cellsparse_proto.v1 import common_pb2

PATIENT = [sys.executable, "-m", "cellsparse"]
HASTY = """
import cellsparse.__main__, cellsparse.runs
assert cellsparse.runs.watch.__kwdefaults__["patience"] == 120.0
cellsparse.runs.watch.__kwdefaults__["patience"] = 4.0
cellsparse.__main__.main()
"""


@pytest.fixture
def watching(request, fake, make):
    """`cellsparse runs watch` on a run that does not end by itself; the start of its command may be a parameter."""
    fake.state.runs = [make.run("run-1")]
    fake.state.events = [make.event(1)]
    fake.state.endless = True
    process = subprocess.Popen(
        [*getattr(request, "param", PATIENT), "runs", "watch", "run-1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        start_new_session=True,
        # A test run in the background of a shell ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert "step 0/10" in process.stdout.readline()
    yield process
    process.kill()
    process.wait(PATIENCE)


def test_ctrl_c_detaches_and_never_cancels(fake, watching):
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 130
    assert "run run-1 goes on" in err
    assert "cellsparse runs watch run-1" in err
    assert "cellsparse runs cancel run-1" in err
    assert "Traceback" not in out + err
    assert fake.state.cancelled == []


def test_a_dead_orchestrator_is_reported_within_seconds_and_a_new_one_is_found(fake, watching, make):
    port = int(fake.address.rpartition(":")[2])
    fake.stop()
    said = []
    reader = threading.Thread(target=lambda: said.append(watching.stdout.readline()), daemon=True)
    reader.start()
    reader.join(QUICK)
    assert said, f"nothing was said within {QUICK:.0f} s"
    assert "Trying again for 120 s" in said[0]
    fake.state.endless = False
    fake.state.events.append(make.event(2, common_pb2.RUN_STATE_SUCCEEDED, step=10))
    fake.state.runs = [make.run("run-1", state=common_pb2.RUN_STATE_SUCCEEDED)]
    fake.start(port)
    out, _ = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 0
    assert "answers again" in out
    assert "step 10/10" in out


@pytest.mark.parametrize("watching", [[sys.executable, "-c", HASTY]], indirect=True, ids=["hasty"])
def test_an_orchestrator_that_stays_away_ends_the_watch(fake, watching):
    fake.stop()
    begun = time.monotonic()
    _, err = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 4
    assert time.monotonic() - begun > 2
    assert "No orchestrator answers" in err


def test_a_reader_that_goes_away_is_no_error(fake, make):
    fake.state.runs = [make.run(f"run-{n}") for n in range(2000)]
    command = f"{sys.executable} -m cellsparse runs list --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "Traceback" not in done.stderr
