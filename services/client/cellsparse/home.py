"""The home folder of the local services, and the address of the orchestrator."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cellsparse.errors import Unavailable

ORCHESTRATOR_FILE = "orchestrator.json"
DEFAULT_HOME = ".cellsparse"
START_SECONDS = 90.0
"""How long `cellsparse up` waits for every service to be healthy."""
STOP_SECONDS = 20.0
"""How long `cellsparse down` waits before it kills what is left."""


@dataclass(frozen=True, kw_only=True)
class RunningOrchestrator:
    """What a running orchestrator writes about itself into its home folder."""

    address: str
    """host:port that it answers on."""
    pid: int
    """Its process id; 0 if the file does not name it."""


def home_dir() -> Path:
    """Return the home folder of the local services: CELLSPARSE_HOME, or ~/.cellsparse."""
    given = os.environ.get("CELLSPARSE_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / DEFAULT_HOME


def read_orchestrator(home: Path) -> RunningOrchestrator | None:
    """Return what the orchestrator of a home folder wrote about itself; None if there is nothing readable."""
    try:
        content = json.loads((home / ORCHESTRATOR_FILE).read_text())
        return RunningOrchestrator(address=str(content["address"]), pid=int(content.get("pid") or 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_address(address: str | None) -> str:
    """Return the orchestrator's address: as given, from CELLSPARSE_ADDRESS, or from its file in the home folder.

    Raises:
        Unavailable: None of the three names one.
    """
    chosen = address or os.environ.get("CELLSPARSE_ADDRESS")
    if chosen:
        return chosen
    running = read_orchestrator(home_dir())
    if running is None:
        raise Unavailable(
            f"No orchestrator is known: {home_dir() / ORCHESTRATOR_FILE} is not there and CELLSPARSE_ADDRESS is not "
            "set; `cellsparse up` starts one."
        )
    return running.address
