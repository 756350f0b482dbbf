"""Starts the orchestrator: `python -m cellsparse_orchestrator`."""

import sys

from cellsparse_common.errors import CellsparseError
from cellsparse_common.logs import configure_logging
from cellsparse_common.server import serve
from cellsparse_common.settings import load
from cellsparse_orchestrator.application import Application
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.settings import OrchestratorSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT, then exit with code 0; 1 and a sentence if it cannot start."""
    try:
        settings = load(OrchestratorSettings)
        configure_logging("orchestrator", settings.log_level)
        with own_home(settings.home):
            application = Application(settings)
            code = serve(
                name="orchestrator",
                settings=settings,
                add=application.add,
                started=application.start,
                drain=application.drain,
                stop=application.stop,
            )
    except CellsparseError as error:
        sys.exit(error.message)
    sys.exit(code)


if __name__ == "__main__":
    main()
