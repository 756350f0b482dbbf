"""Send files straight to an object store, by URLs that the orchestrator has signed, over connections that are kept."""

import http.client
import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urlsplit

NONE: Mapping[str, str] = MappingProxyType({})
_LOG = logging.getLogger(__name__)
_SILENT_SECONDS = 30.0
"""Longest time in which the store may take or answer nothing."""
_KEPT, _KEPT_SECONDS = 8, 15.0
"""Connections that are kept for the next file, and how long; stores close those that are idle for longer."""
_TAKEN = (200, 201, 204)
_LONGEST_ANSWER = 2**16
_CHUNK = 2**18
"""Bytes that are sent at a time."""


class StoreConnections:
    """Connections to the stores that signed URLs name. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[str, float, http.client.HTTPConnection]] = []
        """Scheme and host, since when, and the connection; the newest last."""

    def put(
        self,
        url: str,
        content: str | Path | bytes,
        size: int,
        begin: int = 0,
        headers: Mapping[str, str] = NONE,
        go_on: Callable[[], None] = lambda: None,
    ) -> bool:
        """Send a file or a part of it, and return whether the store has taken it. A file is not held in memory whole.

        Args:
            url: http or https; what is neither is not used.
            content: The file, or its content.
            size: Bytes to send.
            begin: The first of them.
            headers: Headers that the URL asks for.
            go_on: Called again and again while the file is sent; an exception of it ends that, and is raised here.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return False
        given = {"Content-Length": str(size), "Content-Type": "application/octet-stream", **headers}
        try:
            if isinstance(content, bytes):
                return self._put(parts, _Bytes(memoryview(content)[begin : begin + size], go_on), given)
            with Path(content).open("rb") as file:
                return self._put(parts, _Part(file, begin, size, go_on), given)
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            # Clients often cannot reach the store, and need not.
            _LOG.info("the store takes no file directly: %s", getattr(error, "reason", None) or error)
            return False

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, _, connection in idle:
            connection.close()

    def _put(self, url: SplitResult, data: Any, headers: Mapping[str, str]) -> bool:
        if _by_proxy(url):
            return _put_by_proxy(url, data, headers)
        kept = self._take(_server(url))
        if kept is not None:
            try:
                return self._put_on(kept, url, data, headers)
            except (OSError, http.client.HTTPException):
                if isinstance(data, _Part):  # the store had closed it, which nobody knows before
                    data.rewind()
        return self._put_on(_connect(url), url, data, headers)

    def _put_on(
        self, connection: http.client.HTTPConnection, url: SplitResult, data: Any, headers: Mapping[str, str]
    ) -> bool:
        keep = False
        try:
            connection.request("PUT", f"{url.path}?{url.query}", body=data, headers=dict(headers))
            answer = connection.getresponse()
            keep = answer.status in _TAKEN and not answer.will_close and len(answer.read(_LONGEST_ANSWER)) == 0
            return answer.status in _TAKEN
        finally:
            if keep:
                self._keep(_server(url), connection)
            else:
                connection.close()

    def _take(self, server: str) -> http.client.HTTPConnection | None:
        """Return a connection that was kept; None: there is none."""
        with self._lock:
            oldest = time.monotonic() - _KEPT_SECONDS
            late = [each for each in self._idle if each[1] < oldest]
            self._idle = [each for each in self._idle if each[1] >= oldest]
            found = next((each for each in reversed(self._idle) if each[0] == server), None)
            if found is not None:
                self._idle.remove(found)
        for _, _, connection in late:
            connection.close()
        return found[2] if found else None

    def _keep(self, server: str, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.append((server, time.monotonic(), connection))
            extra, self._idle = self._idle[:-_KEPT], self._idle[-_KEPT:]
        for _, _, each in extra:
            each.close()


class _Bytes:
    """Bytes in memory, as an HTTP client iterates over them."""

    def __init__(self, data: memoryview, go_on: Callable[[], None]) -> None:
        self._data = data
        self._go_on = go_on

    def __iter__(self) -> Iterator[memoryview]:
        """Yield them in parts that are no copies, from the first one on."""
        for begin in range(0, len(self._data), _CHUNK):
            self._go_on()
            yield self._data[begin : begin + _CHUNK]


class _Part:
    """Bytes of a file, as an HTTP client reads them."""

    def __init__(self, file: BinaryIO, begin: int, size: int, go_on: Callable[[], None]) -> None:
        self._file = file
        self._go_on = go_on
        self._begin = begin
        self._size = size
        self.rewind()

    def rewind(self) -> None:
        """Begin anew."""
        self._file.seek(self._begin)
        self._left = self._size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size` of them; empty at the end."""
        self._go_on()
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data


def _server(url: SplitResult) -> str:
    return f"{url.scheme}://{url.netloc}"


def _connect(url: SplitResult) -> http.client.HTTPConnection:
    if url.scheme == "http":
        return http.client.HTTPConnection(url.netloc, timeout=_SILENT_SECONDS, blocksize=_CHUNK)
    trust = ssl.create_default_context()
    return http.client.HTTPSConnection(url.netloc, timeout=_SILENT_SECONDS, blocksize=_CHUNK, context=trust)


def _by_proxy(url: SplitResult) -> bool:
    """Whether the environment names a proxy for a URL."""
    proxies = urllib.request.getproxies()
    return bool(url.scheme in proxies and not urllib.request.proxy_bypass(url.netloc))


def _put_by_proxy(url: SplitResult, data: Any, headers: Mapping[str, str]) -> bool:
    request = urllib.request.Request(url.geturl(), data=data, method="PUT", headers=dict(headers))  # noqa: S310 - http(s)
    with urllib.request.urlopen(request, timeout=_SILENT_SECONDS) as answer:  # noqa: S310
        return bool(answer.status in _TAKEN)
