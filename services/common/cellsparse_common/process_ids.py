"""Whether processes of this machine are there."""

import os


def is_alive(pid: int) -> bool:
    """Return whether there is a process of this id, anybody's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
