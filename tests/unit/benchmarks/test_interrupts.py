"""A benchmark that is interrupted leaves no process behind, also not one that was just starting."""

import signal
import subprocess
import sys

import psutil
import pytest
from support.interrupts import interrupts_wait
from support.limits import PATIENCE
from support.orchestrator import until
from support.server_process import TESTS

STARTS = """
import signal
import sys
from pathlib import Path
from support.interrupts import sigterm_interrupts
from support.server_process import ServerProcess

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a script has put in the background
sigterm_interrupts()
folder = Path(sys.argv[1])
with ServerProcess(["-c", "import time; time.sleep(600)"], folder, folder):  # it never says where it listens
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_starting_ends_with_who_started_it(tmp_path, number):
    command = [sys.executable, "-c", STARTS, str(tmp_path)]
    benchmark = subprocess.Popen(command, env={"PYTHONPATH": str(TESTS)}, stderr=subprocess.PIPE)
    try:
        (server,) = until(psutil.Process(benchmark.pid).children)
        benchmark.send_signal(number)
        _, said = benchmark.communicate(timeout=PATIENCE)
        assert b"KeyboardInterrupt" in said
        assert not server.is_running()
    finally:
        benchmark.kill()


def test_an_interrupt_waits_for_the_end_of_a_short_block():
    before, done = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(done)
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is before


def _interrupted(done):
    with interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
