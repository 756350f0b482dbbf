"""Tries out in a copy of this process what might end it."""

import os
import signal
import time
import warnings
from collections.abc import Callable

_POLL_SECONDS = 0.005


def passes_in_fork(check: Callable[[], bool], seconds: float) -> bool:
    """Return whether a check is true in a copy of this process; False where that crashes, hangs, or cannot be made.

    Only the calling thread is copied: a check that waits for another one hangs.

    Args:
        check: What is tried.
        seconds: How long it may take.
    """
    try:
        with warnings.catch_warnings():  # of the threads that the copy lacks
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError:
        return False
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(_POLL_SECONDS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
