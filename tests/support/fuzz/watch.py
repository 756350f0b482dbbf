"""What a process and its children take, and what they leave behind."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

LOOK_SECONDS = 0.2


class MemoryWatch:
    """Notes the most resident memory of processes and of all their descendants while it is entered.

    Args:
        pids: The processes.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peaks: dict[str, float] = {}
        """MiB by process id and command."""

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for pid in descendants(self._pids):
                name, peak = f"{pid} {command(pid)}", number_of(pid, "VmHWM") / 1024
                self.peaks[name] = max(self.peaks.get(name, 0.0), peak)


def descendants(pids: Sequence[int]) -> Iterator[int]:
    """Yield processes and all that they started, as far as these live."""
    for pid in pids:
        yield pid
        children: list[int] = []
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children += map(int, file.read_text().split())
            except OSError:
                continue
        yield from descendants(children)


def command(pid: int) -> str:
    """Return the end of a process's command line, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ").strip()[-60:]
    except OSError:
        return ""


def number_of(pid: int, what: str) -> int:
    """Return a number of a process's status, such as Threads or VmHWM (kB); 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{what}:")), 0)


def open_files(pid: int) -> int:
    """Return how many files a process has open."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0
