"""What every upload needs: a folder that goes away, and an end of patience."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from cellsparse_common.files import disk_errors


@contextmanager
def upload_folder(spool: Path) -> Iterator[Path]:
    """Give an empty folder that is removed in the end.

    Args:
        spool: Where; made if it is missing.

    Raises:
        StorageError: It cannot be made.
    """
    with disk_errors(f"write {spool}"):
        spool.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=spool)
    with folder as name:
        yield Path(name)


@contextmanager
def time_limit(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel a call that takes longer: a client that keeps its stream open and silent would stay for ever."""
    limit = threading.Timer(seconds, context.cancel)
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()
