"""Start the gateway: `python -m cellsparse_gateway`."""

import sys

from cellsparse_common import tracing
from cellsparse_common.config.settings import load
from cellsparse_common.errors import CellsparseError
from cellsparse_common.logs import configure_logging
from cellsparse_gateway.settings import GatewaySettings


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit with code 0, or with 1 and a message."""
    try:
        settings = load(GatewaySettings)
        configure_logging("gateway", settings.log_level)
        tracing.start("gateway")
        # Slow to import, and not needed to refuse settings.
        from cellsparse_gateway.server import serve

        serve(settings)
    except CellsparseError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
