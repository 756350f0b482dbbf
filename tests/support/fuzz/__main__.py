"""Attack live servers with hostile files and requests.

python -m support.fuzz --files 5000 --requests 100000    # prints each case that breaks something, and replays it
python -m support.fuzz --case call:17                    # plays one again
"""

import argparse
import sys
import tempfile
from pathlib import Path

from support.fuzz.attack import cases, play, play_all
from support.fuzz.watch import MemoryWatch
from support.fuzz.world import World

MOST_MIB = 1024
"""Most resident memory of any process."""


def main() -> int:
    """Play the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case: others find other things")
    parser.add_argument("--case", help="play one case alone, such as call:17")
    parser.add_argument("--keep", type=Path, help="folder for the servers' files and logs; not set: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cellsparse-fuzz-") as made, World(given.keep or Path(made)) as world:
        with MemoryWatch(list(world.pids.values())) as memory:
            if given.case:
                wrong = play(world, given.case)
                broken = [f"{given.case}: {wrong}"] if wrong else []
                print(*broken, sep="\n")
            else:
                broken = play_all(world, cases(given.files, given.requests, given.first))
        broken += _told(world.complaints())
        broken += _told(f"{name} took {peak:.0f} MiB" for name, peak in memory.peaks.items() if peak > MOST_MIB)
    print(f"largest process: {max(memory.peaks.values(), default=0):.0f} MiB; {len(broken)} broke something")
    return int(bool(broken))


def _told(found: object) -> list[str]:
    lines = list(found)  # type: ignore[call-overload]
    print(*lines, sep="\n")
    return lines


if __name__ == "__main__":
    sys.exit(main())
