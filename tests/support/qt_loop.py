"""Qt's event loop in tests, which nothing else turns."""

import time

from support.limits import PATIENCE


def turn_until(done, seconds: float = PATIENCE) -> int:
    """Let Qt's event loop turn until it is done; return how often it turned."""
    from qtpy.QtCore import QEventLoop, QTimer

    turns, end = 0, time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        loop = QEventLoop()
        QTimer.singleShot(20, loop.quit)
        loop.exec()
        turns += 1
    return turns
