"""Threads that begin one after the other, and that must end."""

import threading
import time

from support.limits import PATIENCE


def started(*works):
    """Start works one after the other, each when those before it have come to wait."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    return threads


def joined(threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
