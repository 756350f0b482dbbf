"""Starts a real service process on a free port of loopback, and ends it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from support.interrupts import interrupts_wait
from support.limits import PATIENCE

LOG_CHARACTERS = 3000
TESTS = Path(__file__).resolve().parents[1]


class ServerProcess:
    """`with ServerProcess(["-m", "cellsparse_unet"], store, work) as server:` gives a server that answers.

    Attributes:
        address: host:port.
        pid: Its process id.
        log: What it prints.
    """

    def __init__(
        self, arguments: list[str], store: Path, work: Path, *, prefix: Sequence[str] = (), **environment: str
    ) -> None:
        self._arguments = arguments
        self._prefix = prefix
        self._work = work
        self._environment = {"CELLSPARSE_STORE_URL": f"file://{store}", **environment}
        self.log = work / "server.log"

    def __enter__(self) -> "ServerProcess":
        address_file = self._work / "address"
        address_file.unlink(missing_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")},
            "PYTHONPATH": str(TESTS),
            "CELLSPARSE_PORT": "0",
            "CELLSPARSE_ADDRESS_FILE": str(address_file),
            "CELLSPARSE_WORK_DIR": str(self._work / "work"),
            **self._environment,
        }
        command = [*self._prefix, sys.executable, *self._arguments]
        process = None
        try:
            with self.log.open("a") as log, interrupts_wait():
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            self._process, self.pid = process, process.pid
            end = time.monotonic() + PATIENCE
            while not address_file.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{self._arguments} did not start:\n{self.log.read_text()}")
                time.sleep(0.05)
            self.address = address_file.read_text()
        except BaseException:  # an interrupt, too: nobody else ends what has just begun
            end_process(process)
            raise
        return self

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> int:
        """Wait for its end and return its exit code."""
        return self._process.wait(seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # pytest passes it on with the failure
            print(f"{self.log} ends:", self.log.read_text(errors="replace")[-LOG_CHARACTERS:], sep="\n")
        end_process(self._process)


def end_process(process: subprocess.Popen[bytes] | None, seconds: float = PATIENCE) -> None:
    """End a process: by SIGTERM, and by SIGKILL if it has not ended after some seconds."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(seconds)
