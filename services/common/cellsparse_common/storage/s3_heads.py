"""Headers of objects, asked for over connections that are kept.

Orchestrators ask for those of every file that comes. What the `minio` package does around such a small request takes
three times the processor time of the request itself.
"""

import http.client
import ssl
from collections.abc import Mapping
from queue import Empty, Full, LifoQueue
from urllib.parse import SplitResult, urlsplit

from cellsparse_common.storage.s3_connection import CONNECTIONS

_SILENT_SECONDS = 10.0
"""Longest time in which the server may take or answer nothing; then it is for others to try again."""


class HeadRequests:
    """Asks one server. Safe to use from many threads.

    Args:
        trust: Authorities of a server that speaks TLS.
    """

    def __init__(self, trust: ssl.SSLContext | None) -> None:
        self._trust = trust
        self._kept: LifoQueue[http.client.HTTPConnection] = LifoQueue(CONNECTIONS)

    def ask(self, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]] | None:
        """Return status and headers of an answer.

        Args:
            url: A signed URL for HEAD; all must name one server.
            headers: Headers of the request.

        Returns:
            Names of headers are as the server writes them. None: the connection failed, as one does that the server has
            closed meanwhile. It is not tried again here.
        """
        parts = urlsplit(url)
        try:
            connection = self._kept.get_nowait()
        except Empty:
            connection = self._new(parts)
        try:
            connection.request("HEAD", f"{parts.path}?{parts.query}", headers=dict(headers))
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return None
        self._keep(connection, answer)
        return answer.status, dict(answer.headers.items())

    def _new(self, url: SplitResult) -> http.client.HTTPConnection:
        if url.scheme == "http":
            return http.client.HTTPConnection(url.netloc, timeout=_SILENT_SECONDS)
        return http.client.HTTPSConnection(url.netloc, timeout=_SILENT_SECONDS, context=self._trust)

    def _keep(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        try:
            if not answer.will_close:
                self._kept.put_nowait(connection)
                return
        except Full:
            pass
        connection.close()
