"""Ask the gateway of this environment for its health: `python -m cellsparse_gateway.health`."""

import http.client
import sys
from http import HTTPStatus

from cellsparse_common.config.settings import load
from cellsparse_common.errors import CellsparseError
from cellsparse_gateway.settings import GatewaySettings

SECONDS = 5.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


def check(settings: GatewaySettings) -> str:
    """Return what is wrong with the gateway that has these settings; empty if nothing is."""
    host = settings.host.strip("[]")
    connection = http.client.HTTPConnection(EVERYWHERE.get(host, host), settings.port, timeout=SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"The gateway does not answer at {settings.host}:{settings.port}: {error}."
    finally:
        connection.close()
    return "" if status == HTTPStatus.OK else f"The gateway answers {status}."


def main() -> None:
    """Exit with code 0 if the gateway answers, else with 1 and a sentence."""
    try:
        problem = check(load(GatewaySettings))
    except CellsparseError as error:
        problem = error.message
    sys.exit(problem or 0)


if __name__ == "__main__":
    main()
