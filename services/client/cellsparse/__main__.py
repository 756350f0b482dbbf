"""The `cellsparse` command."""

import contextlib
import io
import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from cellsparse.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no \u00b5 is no reason to fail
    code = run(sys.argv[1:])
    # A call that is left behind, in a thread of Python or of gRPC, can crash the interpreter while that is taken apart.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):  # closed, or its reader has gone
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
