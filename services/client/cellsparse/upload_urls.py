"""Send a file straight to an object store, by a URL that the orchestrator has signed."""

import logging
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_LOG = logging.getLogger(__name__)
_SILENT_SECONDS = 30.0
"""Longest time in which the store may take or answer nothing."""


def put_to_url(url: str, content: str | Path | bytes, size: int) -> bool:
    """Send a file, and return whether the store has taken it. A file is not held in memory whole.

    Args:
        url: http or https; what is neither is not used.
        content: The file, or its content.
        size: Its bytes.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        return False
    try:
        if isinstance(content, bytes):
            return _put(url, content, size)
        with Path(content).open("rb") as file:
            return _put(url, file, size)
    except (OSError, ValueError) as error:  # URLError is an OSError
        # Clients often cannot reach the store, and need not.
        _LOG.info("the store takes no file directly: %s", getattr(error, "reason", None) or error)
        return False


def _put(url: str, data: Any, size: int) -> bool:
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=data, method="PUT", headers=headers)  # noqa: S310 - see `put_to_url`
    with urllib.request.urlopen(request, timeout=_SILENT_SECONDS) as answer:  # noqa: S310
        return bool(answer.status in (200, 201, 204))
