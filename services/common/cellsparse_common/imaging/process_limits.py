"""Limits on what this process may use, where the system knows such limits."""

from pathlib import Path

_UNKNOWN = 2**30


def memory_in_use() -> int:
    """Return the bytes of this process's address space; 1 GiB where the system does not say."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return _UNKNOWN


def set_limit(what: str, most: int) -> None:
    """Set a limit; it may be raised again.

    Args:
        what: "AS", the address space in bytes, or "CPU", processor time in seconds.
        most: The limit.
    """
    try:
        import resource
    except ImportError:
        return
    kind = {"AS": resource.RLIMIT_AS, "CPU": resource.RLIMIT_CPU}[what]
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(kind, (most, hard))
    except (ValueError, OSError):
        return  # macOS has no limit on address space
