"""The home folder of the local services, and the address of the orchestrator."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cellsparse.errors import InvalidArgument, Unavailable
from cellsparse_common.rpc.address import check_address

ORCHESTRATOR_FILE = "orchestrator.json"
ADDRESS_VARIABLE = "CELLSPARSE_ADDRESS"
DEFAULT_HOME = ".cellsparse"
LARGEST_PID = 2**31 - 1
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
    try:
        return Path(given).expanduser().absolute() if given else Path.home() / DEFAULT_HOME
    except (RuntimeError, OSError) as error:  # a user without a home, or a working folder that was removed
        raise InvalidArgument(f"The home folder cannot be found ({error}); CELLSPARSE_HOME names one.") from None


def read_orchestrator(home: Path) -> RunningOrchestrator | None:
    """Return what the orchestrator of a home folder wrote about itself; None if there is nothing readable."""
    try:
        content = json.loads((home / ORCHESTRATOR_FILE).read_text())
        pid = int(content.get("pid") or 0)
        address = check_address(str(content["address"]), ORCHESTRATOR_FILE)
        return RunningOrchestrator(address=address, pid=pid if 0 <= pid <= LARGEST_PID else 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, InvalidArgument):
        return None


def chosen_address(address: str | None) -> str | None:
    """Return the address as given, or from CELLSPARSE_ADDRESS; None: neither names one.

    Raises:
        InvalidArgument: It is not host:port.
    """
    if address is not None:
        return check_address(address, "The address")
    named = os.environ.get(ADDRESS_VARIABLE)
    return check_address(named, ADDRESS_VARIABLE) if named else None


def find_address(home: Path) -> str:
    """Return the orchestrator's address from its file in a home folder.

    Raises:
        Unavailable: There is none.
    """
    running = read_orchestrator(home)
    if running is None:
        raise Unavailable(
            f"No orchestrator is known: {home / ORCHESTRATOR_FILE} is not there and {ADDRESS_VARIABLE} is not "
            "set; `cellsparse up` starts one."
        )
    return running.address
