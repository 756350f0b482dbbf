"""Credentials of an S3 server that end after a while, in a file that is replaced before they do."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cellsparse_common.errors import StorageError
from cellsparse_common.files import disk_errors, unfinished


@dataclass(frozen=True, kw_only=True)
class S3Credentials:
    """Temporary credentials."""

    access_key: str
    """Access key."""
    secret_key: str
    """Secret key."""
    session_token: str
    """What the server needs to know them by."""
    expire_time: float
    """When they end, seconds since 1970, UTC."""

    def write(self, path: Path) -> None:
        """Write or replace a file that only its owner can read.

        Raises:
            StorageError: It cannot be written.
        """
        with disk_errors(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished(path.parent) as (file, new):
                new.chmod(0o600)
                file.write(json.dumps(asdict(self)).encode())
                file.flush()
                new.replace(path)


class CredentialsFile:
    """Reads credentials from a file again whenever it has changed.

    Args:
        path: The file that `S3Credentials.write` writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed: tuple[int, int] | None = None
        self._found: S3Credentials | None = None

    def current(self) -> S3Credentials:
        """Return the credentials that are valid now.

        Raises:
            StorageError: There are none; their file may be replaced at any time, so that to wait may help.
        """
        with disk_errors(f"read the store's credentials {self._path}"):
            status = os.stat(self._path)  # noqa: PTH116 - one call for both numbers
            changed = (status.st_mtime_ns, status.st_ino)
            if self._found is None or changed != self._changed:
                try:
                    self._found = S3Credentials(**json.loads(self._path.read_bytes()))
                except (ValueError, TypeError) as error:
                    raise StorageError(f"The file of the store's credentials, {self._path}, is damaged.") from error
                self._changed = changed
        if self._found.expire_time <= time.time():
            raise StorageError("The credentials for the store have ended, and new ones have not come yet.")
        return self._found
