"""A way to a server that breaks: it passes on so many bytes, then closes every connection."""

import socket
import threading
from contextlib import suppress

from support.limits import PATIENCE


class CutConnection:
    """`with CutConnection("127.0.0.1:5000") as way:` gives another address of a server.

    Args:
        target: host:port of the server.

    Attributes:
        address: host:port that leads there.
        sent: Bytes that clients have sent so far.
        limit: After so many of them every connection is closed, once; None: never.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self.sent = 0
        self.limit: int | None = None

    def __enter__(self) -> "CutConnection":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._begin(self._accept)
        return self

    def __exit__(self, *details) -> None:
        # Sockets are closed by the threads that use them, or another one could get their number meanwhile.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _begin(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open.append((client, server))
                self._begin(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            back = threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True)
            back.start()
            self._pass_on(client, server, True)
            back.join(PATIENCE)
            with self._lock, suppress(ValueError):
                self._open.remove((client, server))

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
                if counts and self._is_over(len(data)):
                    self._cut()
        _shut(source)
        _shut(target)

    def _is_over(self, size: int) -> bool:
        with self._lock:
            self.sent += size
            over = self.limit is not None and self.sent >= self.limit
            if over:
                self.limit = None
            return over

    def _cut(self) -> None:
        with self._lock:
            for pair in self._open:
                for each in pair:
                    _shut(each)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
