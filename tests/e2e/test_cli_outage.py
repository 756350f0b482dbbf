"""What the command says when the orchestrator is killed, and what is left after `cellsparse down`."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
from support.limits import PATIENCE, QUICK

from cellsparse import local_services as stack_processes

SLOW = ["--set", "steps=100000", "--set", "crop_size=32", "--set", "batch_size=1", "--set", "device=cpu"]


def test_a_killed_orchestrator_is_noticed_and_after_up_the_watch_goes_on(stack, folder):
    stack.json("dataset", "import", str(folder), "--name", "discs")
    watching = stack.start(["train", "discs", "--backend", "unet", *SLOW, "--name", "long"])
    lines: list[tuple[float, str]] = []

    def read() -> None:
        lines.extend((time.monotonic(), line) for line in watching.stdout)

    threading.Thread(target=read, daemon=True).start()
    wait_for(lambda: any("step" in line for _, line in lines), PATIENCE)
    killed = time.monotonic()
    os.kill(json.loads((stack.home / "orchestrator.json").read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: any("Trying again" in line for _, line in lines), QUICK)
    assert stack.json("up")["started"] is True
    wait_for(lambda: any("answers again" in line for at, line in lines if at > killed), PATIENCE)
    stack.json("runs", "cancel", "long")
    assert watching.wait(PATIENCE) == 1
    assert stack.json("runs", "show", "long")["state"] == "cancelled"


def test_down_leaves_nothing_behind(stack):
    status = stack.json("status")
    pids = [service["pid"] for service in status["services"]]
    children = [child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)]
    stack.run("down")
    assert not [pid for pid in {*pids, *children} if psutil.pid_exists(pid)]
    assert "nothing runs" in stack.run("down").stdout
    assert "cellsparse up" in stack.run("status", code=4).stderr


def test_ctrl_c_in_the_demo_stops_all_that_it_started(tmp_path):
    command = [sys.executable, "-u", "-m", "cellsparse.demo", "--out", str(tmp_path / "demo")]
    demo = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in demo.stdout:
            if "starting" in line:
                break
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=PATIENCE)
    finally:
        demo.kill()
        left = stack_processes.down(tmp_path / "demo" / "home")
    assert demo.returncode == 130
    assert "Traceback" not in err
    assert left == 0


def wait_for(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
