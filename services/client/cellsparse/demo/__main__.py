"""`python -m cellsparse.demo`: see `--help`."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from cellsparse.cli.exits import Exit, report
from cellsparse.errors import CellsparseError


def main() -> None:
    """Run the demo and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the demo.

    Returns:
        0 ok, 1 a run failed, 2 bad folder, 4 the services did not start, 5 another error, 130 Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cellsparse.demo",
        description="Start the services, train and score every backend on a few labelled cells, stop the services.",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="images/ and masks/ of yours [the nuclei of stardist]")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="results [out/demo]")
    parser.add_argument("--keep-running", action="store_true", help="leave the services running")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        from cellsparse.demo.pipeline import demo

        return demo(options.data, options.out.absolute(), keep_running=options.keep_running)
    except CellsparseError as error:
        return report(error)
    except KeyboardInterrupt:
        return Exit.DETACHED


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is signal's
    """End in order, so that what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
