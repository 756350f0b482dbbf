"""Watch a run with the client of whatever release PYTHONPATH names: a line of JSON per event, and per break."""

import json
import sys

from cellsparse import runs
from cellsparse.connection import Connection


def main() -> None:
    """Watch the run of the second argument at the address of the first."""
    connection = Connection(sys.argv[1], 30.0, None)
    events = runs.watch(
        connection,
        sys.argv[2],
        patience=300.0,
        on_lost=lambda error, _: print(json.dumps({"lost": error.message}), flush=True),
    )
    for event in events:
        print(json.dumps({"sequence": event.sequence, "state": event.state}), flush=True)


if __name__ == "__main__":
    main()
