"""End a process whose parent is gone, so that no orphan works on unseen."""

import os
import threading
import time

ORPHANED = 75
"""Exit code of a process that ended because its parent was gone."""
_POLL_SECONDS = 0.5


def end_on_eof(descriptor: int) -> None:
    """End this process at once when the other end of a pipe is closed; what comes through the pipe is dropped.

    Args:
        descriptor: Reading end of the pipe. A bare descriptor, because a thread that holds the lock of a buffered
            reader makes the interpreter crash on exit.
    """

    def watch() -> None:
        while os.read(descriptor, 4096):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="end-on-eof", daemon=True).start()


def end_with_parent(parent: int) -> None:
    """End this process within a second after its parent; for processes that have no pipe of their own to the parent.

    Args:
        parent: Process id of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
