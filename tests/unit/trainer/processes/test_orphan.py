import subprocess
import sys
import time

import psutil
import pytest

from cellsparse_trainer.processes.orphan import ORPHANED


def test_a_process_ends_when_its_pipe_closes():
    code = "import sys, time; from cellsparse_trainer.processes.orphan import end_on_eof\n"
    code += "end_on_eof(sys.stdin.fileno()); print(flush=True); time.sleep(300)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    child.stdin.write(b"something")
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.stdin.close()
    assert child.wait(60) == ORPHANED


def test_a_process_ends_with_its_parent():
    orphan = "import os, time; from cellsparse_trainer.processes.orphan import end_with_parent\n"
    orphan += "end_with_parent(os.getppid()); print(os.getpid(), flush=True); time.sleep(300)"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = subprocess.Popen([sys.executable, "-c", parent, orphan], stdout=subprocess.PIPE)
    pid = int(child.stdout.readline())
    assert psutil.pid_exists(pid)
    child.kill()
    child.wait(60)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        assert time.monotonic() < deadline
        time.sleep(0.05)
