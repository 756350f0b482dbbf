"""Start, query and end the child processes of the trainers' benchmark."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cellsparse_trainer.contract import find_backend
from cellsparse_trainer.processes import environment as process_environment

CHILD = Path(__file__).with_name("trainer_child.py")
GRACE_SECONDS = 30.0


def environment(threads: int, backend: str, *, ours: bool) -> dict[str, str]:
    """Return the environment of a child: the number of threads of both frameworks, and no GPU.

    Our side gets the environment that a trainer gives its children. The stock side gets only the part of it that keeps
    OpenMP's threads from spinning, which would slow it down only because of other work on the machine.
    """
    own = find_backend(f"cellsparse_{backend}").environment
    number = str(threads)
    found = os.environ | {
        "OMP_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
        "TF_NUM_INTRAOP_THREADS": number,
        "TF_NUM_INTEROP_THREADS": number,
        "CUDA_VISIBLE_DEVICES": "",
        "GOMP_SPINCOUNT": {**process_environment.DEFAULTS, **own}["GOMP_SPINCOUNT"],
    }
    if ours:
        process_environment.prepare(found, own)
    return found


class Child:
    """A child process; leaving its context ends it.

    Raises:
        RuntimeError: The child ended early; the message names its log.
    """

    def __init__(self, what: str, backend: str, preset: str, *more: str, threads: int, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._log = (logs / f"{what}-{backend}-{preset}.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), what, backend, preset, *more],
            env=environment(threads, backend, ours=what != "stock"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """Return the next message; None if the child has ended normally.

        Raises:
            TimeoutError: There was no message in time.
        """
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"A benchmark process said nothing for {timeout:.0f} s; see {self._log.name}.") from None
        if line:
            message: dict[str, Any] = json.loads(line)
            return message
        if self._process.wait(GRACE_SECONDS):
            raise RuntimeError(f"A benchmark process failed; see {self._log.name}.")
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait(GRACE_SECONDS)
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")
