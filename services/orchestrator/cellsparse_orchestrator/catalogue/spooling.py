"""What every upload needs: a temporary folder and a time limit."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from cellsparse_common.files import disk_errors


@contextmanager
def upload_folder(spool: Path) -> Iterator[Path]:
    """Give an empty folder that is removed at the end of the `with` block.

    Args:
        spool: The parent folder; created if it is missing.

    Raises:
        StorageError: The folder cannot be created.
    """
    with disk_errors(f"write {spool}"):
        spool.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=spool)
    with folder as name:
        yield Path(name)


@contextmanager
def time_limit(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel a call that takes longer; a client with an open but silent stream would otherwise block it for ever."""
    limit = threading.Timer(seconds, context.cancel)
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()
