"""Where the local stack lives, and which orchestrator to talk to."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cellsparse.errors import Unavailable

RECORD = "orchestrator.json"
DEFAULT_HOME = ".cellsparse"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a running orchestrator says about itself in its home folder."""

    address: str
    """host:port it answers on."""
    pid: int
    """Its process id; 0 if it did not say."""


def home_dir() -> Path:
    """Return the home folder of the local stack: CELLSPARSE_HOME, or ~/.cellsparse."""
    given = os.environ.get("CELLSPARSE_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / DEFAULT_HOME


def read_record(home: Path) -> Record | None:
    """Return what the orchestrator of a home folder wrote about itself; None if there is nothing readable."""
    try:
        content = json.loads((home / RECORD).read_text())
        return Record(address=str(content["address"]), pid=int(content.get("pid") or 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_address(address: str | None) -> str:
    """Return the orchestrator's address: as given, from CELLSPARSE_ADDRESS, or from the home folder's record.

    Raises:
        Unavailable: None of the three names one.
    """
    chosen = address or os.environ.get("CELLSPARSE_ADDRESS")
    if chosen:
        return chosen
    record = read_record(home_dir())
    if record is None:
        raise Unavailable(
            f"No orchestrator is known: {home_dir() / RECORD} is not there and CELLSPARSE_ADDRESS is not set; "
            "`cellsparse up` starts one."
        )
    return record.address
