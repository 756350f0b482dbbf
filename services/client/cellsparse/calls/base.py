"""What all calls of a client need."""

from cellsparse.connection import Connection


class Calls:
    """Methods that share one connection."""

    connection: Connection
    """To the orchestrator."""
