"""Send a file straight to an object store, by a URL that the orchestrator has signed."""

import logging
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

NONE: Mapping[str, str] = MappingProxyType({})
_LOG = logging.getLogger(__name__)
_SILENT_SECONDS = 30.0
"""Longest time in which the store may take or answer nothing."""


def put_to_url(
    url: str, content: str | Path | bytes, size: int, begin: int = 0, headers: Mapping[str, str] = NONE
) -> bool:
    """Send a file or a part of it, and return whether the store has taken it. A file is not held in memory whole.

    Args:
        url: http or https; what is neither is not used.
        content: The file, or its content.
        size: Bytes to send.
        begin: The first of them.
        headers: Headers that the URL asks for.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        return False
    try:
        if isinstance(content, bytes):
            return _put(url, memoryview(content)[begin : begin + size], size, headers)
        with Path(content).open("rb") as file:
            file.seek(begin)
            return _put(url, _Part(file, size), size, headers)
    except (OSError, ValueError) as error:  # URLError is an OSError
        # Clients often cannot reach the store, and need not.
        _LOG.info("the store takes no file directly: %s", getattr(error, "reason", None) or error)
        return False


class _Part:
    """The next bytes of a file, as an HTTP client reads it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size` of them; empty at the end."""
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data


def _put(url: str, data: Any, size: int, more: Mapping[str, str]) -> bool:
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream", **more}
    request = urllib.request.Request(url, data=data, method="PUT", headers=headers)  # noqa: S310 - see `put_to_url`
    with urllib.request.urlopen(request, timeout=_SILENT_SECONDS) as answer:  # noqa: S310
        return bool(answer.status in (200, 201, 204))
