"""Gates at which a training process waits until a test lets it go on.

They are files in one folder, which the variable CRASH_GATES names. `<run>.hold` says at which phase a run is held; as
long as there is no such file, the run waits at its first gate, so that no test comes too late. `<run>.held` appears
when the run waits there, with the id of the process.
"""

import os
import time
from pathlib import Path

FOLDER = "CRASH_GATES"
STARTING, FIRST_STEP, CHECKPOINT, FINISHING = "starting", "first step", "checkpoint", "finishing"
_SECONDS = 1800.0
_LOOK_SECONDS = 0.02


class Gates:
    """A test's side of the gates.

    Args:
        folder: Holds the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hold(self, run_id: str, phase: str) -> None:
        """Hold a run at a phase from now on, or, with "", nowhere."""
        _write(self.folder / f"{run_id}.hold", phase)

    def held(self, run_id: str) -> int:
        """Return the id of the process that waits; 0: none does yet."""
        try:
            return int((self.folder / f"{run_id}.held").read_text())
        except FileNotFoundError:
            return 0


def wait_at(run_id: str, phase: str) -> None:
    """Wait as long as a test holds this run at this phase."""
    folder = Path(os.environ[FOLDER])
    hold, end = folder / f"{run_id}.hold", time.monotonic() + _SECONDS
    while not hold.exists():
        _rest(end)
    if hold.read_text() == phase:
        _write(folder / f"{run_id}.held", str(os.getpid()))
    while hold.read_text() == phase:
        _rest(end)


def _rest(end: float) -> None:
    if time.monotonic() > end:
        raise TimeoutError("no test has opened the gate")
    time.sleep(_LOOK_SECONDS)


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)
