"""The secrets that tests use, and a look for them in all logs that a session of tests has written."""

from collections.abc import Iterator
from pathlib import Path

S3_SECRET_KEY = "test-secret-key"
DATABASE_PASSWORD = "correct-horse"
SECRETS = tuple(secret.encode() for secret in (S3_SECRET_KEY, DATABASE_PASSWORD, "hunter2"))
LOGS = ("*.log", "*.log.*")


def find_leaks(folder: Path) -> list[str]:
    """Return the logs below a folder that hold a secret, with the lines."""
    return [f"{path}: {line}" for pattern in LOGS for path in folder.rglob(pattern) for line in _leaks(path)]


def _leaks(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for line in file:
                if any(secret in line for secret in SECRETS):
                    yield line[:500].decode(errors="replace").strip()
    except OSError:
        return  # removed in the meantime, or a pipe that nobody writes
