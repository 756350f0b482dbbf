"""How much memory a service takes with all its children: the sum of their proportional shares (PSS)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

LOOK_SECONDS = 0.5
"""Looking is not free: the system walks through all pages of a process."""
MIB = 2**20
SERVICES = ("orchestrator", "sparsifier", "cellpose", "stardist", "unet")


def by_service(pid: int) -> dict[str, float]:
    """Return MiB by service of an orchestrator on one machine, whose children are the others.

    What processes share counts once: each has its part of it.
    """
    found: dict[str, float] = {}
    orchestrator = psutil.Process(pid)
    found["orchestrator"] = _pss([orchestrator])
    for child in orchestrator.children():
        try:
            words = " ".join(child.cmdline())
            family = [child, *child.children(recursive=True)]
        except psutil.Error:
            continue
        name = next((name for name in SERVICES if f"cellsparse_{name}" in words), "other")
        found[name] = found.get(name, 0.0) + _pss(family)
    return found


@contextmanager
def peak(pid: int) -> Iterator[dict[str, float]]:
    """Give what `by_service` returns at most during the block; it is complete after it."""
    found = by_service(pid)
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            for name, mib in by_service(pid).items():
                found[name] = max(found.get(name, 0.0), mib)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _pss(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss / MIB
        except psutil.Error:
            continue
    return total
