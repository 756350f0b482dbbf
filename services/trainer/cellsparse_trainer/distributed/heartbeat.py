"""Keeps the processes of one training in step: they begin together, take the same steps, and end together.

Rank 0 is the coordinator: it listens, and the other ranks, the workers, connect to it. Over these connections the
coordinator sends the step to begin with and whether there is a next step, and every process sends a heartbeat every
`BEAT_SECONDS`. So all others notice within `SILENT_SECONDS` when a process ends, hangs or can no longer be reached,
even while the framework's own collective operations block.

Messages are lines of text: "." is a heartbeat, "begin N" starts after N steps, "step" allows one step, "end" ends the
training. Before "begin", rank 0 may tell the others more, see `timing`. A worker's first line is the training's token
and its rank. The token is a secret of the attempt, so that no other process can take a rank's place.
"""

import contextlib
import hmac
import queue
import socket
import threading
import time
from collections.abc import Callable

from cellsparse_common.errors import Unavailable

BEAT_SECONDS = 2.0
SILENT_SECONDS = 20.0
"""A process that sends nothing for this long is lost."""
GREETING_SECONDS = 5.0
"""A connection that does not identify itself within this time is closed: a worker may be waiting behind it."""
_RETRY_SECONDS = 0.2
_LONGEST = 4096

Lost = Callable[[str], None]
"""Called in its own thread, with an error message, when a peer is lost. Should terminate this process."""


class _Peer:
    """The connection to one other process."""

    def __init__(self, connection: socket.socket, name: str, lost: Lost) -> None:
        connection.settimeout(SILENT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._reader = connection.makefile("rb")
        self._name = name
        self._lost = lost
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.received: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Messages of the other process, without heartbeats."""

    def send(self, text: str) -> None:
        """Send a message; the listening thread notices a broken connection."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(text.encode() + b"\n")

    def watch(self) -> None:
        """Receive messages and send heartbeats from now on, each in its own thread."""
        for work in (self._listen, self._beat):
            threading.Thread(target=work, name=f"heartbeat-{self._name}", daemon=True).start()

    def finish(self) -> None:
        """Expect the connection to close from now on."""
        self._done.set()

    def first(self) -> str:
        """Return the first line; empty if none arrives in time."""
        self._socket.settimeout(GREETING_SECONDS)
        try:
            return self._reader.readline(_LONGEST).decode(errors="replace").strip()
        except OSError:
            return ""

    def close(self) -> None:
        """Close the connection."""
        self._done.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        sentence = f"{self._name} is gone."
        try:
            while text := self._reader.readline(_LONGEST):
                message = text.decode().strip()
                if message == "end":
                    self._done.set()
                if message != ".":
                    self.received.put(message)
        except TimeoutError:
            sentence = f"{self._name} was silent for {SILENT_SECONDS:.0f} s."
        except (OSError, ValueError):
            pass
        if not self._done.is_set():
            self._lost(sentence)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            self.send(".")


class Coordinator:
    """Rank 0's side.

    Args:
        host: Address to listen on.
        port: TCP port.
        world: Number of processes, this one included.
        token: Secret of this training's attempt, without spaces; workers must send it.
        lost: See `Lost`.
    """

    def __init__(self, host: str, port: int, *, world: int, token: str, lost: Lost) -> None:
        self._listener = socket.create_server((host, port))
        self._world = world
        self._token = token
        self._lost = lost
        self._workers: dict[int, _Peer] = {}

    def gather(self, seconds: float) -> None:
        """Wait until all workers are connected.

        Raises:
            Unavailable: Not all connected in time; names the missing ranks.
        """
        deadline = time.monotonic() + seconds
        while len(self._workers) < self._world - 1:
            self._listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                missing = ", ".join(str(rank) for rank in range(1, self._world) if rank not in self._workers)
                raise Unavailable(
                    f"Not all of the {self._world} processes were there within {seconds:.0f} s; missing: {missing}."
                ) from None
            self._admit(connection)
        self._listener.close()

    def tell(self, text: str) -> None:
        """Send a line to all workers, who `hear` it."""
        self._send(text)

    def hear_all(self) -> list[str]:
        """Wait for a line that each worker says."""
        return [worker.received.get() for worker in self._workers.values()]

    def begin(self, step: int) -> None:
        """Make all workers begin after a number of steps."""
        self._send(f"begin {step}")

    def next_step(self) -> None:
        """Allow all workers to take the next step."""
        self._send("step")

    def end(self) -> None:
        """End the training of all workers: there is no next step."""
        for worker in self._workers.values():
            worker.finish()
        self._send("end")

    def close(self) -> None:
        """Close the connection."""
        self._listener.close()
        for worker in self._workers.values():
            worker.close()

    def _send(self, text: str) -> None:
        for worker in self._workers.values():
            worker.send(text)

    def _admit(self, connection: socket.socket) -> None:
        """Accept a worker of this training; close any other connection."""
        peer = _Peer(connection, "a stranger", self._lost)
        token, _, rank = peer.first().rpartition(" ")
        known = hmac.compare_digest(token.encode(), self._token.encode())
        if not known or not rank.isdigit() or not 0 < int(rank) < self._world or int(rank) in self._workers:
            peer.close()
            return
        peer = _Peer(connection, f"Rank {rank} of {self._world}", self._lost)
        self._workers[int(rank)] = peer
        peer.watch()


class Worker:
    """The side of any other rank.

    Args:
        host: Where rank 0 listens.
        port: Its TCP port.
        rank: Number of this process, from 1.
        token: The coordinator's.
        lost: See `Lost`.
        seconds: Time within which rank 0 must listen.

    Raises:
        Unavailable: It does not listen in time.
    """

    def __init__(self, host: str, port: int, *, rank: int, token: str, lost: Lost, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                connection = socket.create_connection((host, port), timeout=SILENT_SECONDS)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"Rank 0 of the training was not there at {host}:{port} within {seconds:.0f} s: {error}."
                    ) from error
                time.sleep(_RETRY_SECONDS)
        self._coordinator = _Peer(connection, "Rank 0", lost)
        self._coordinator.send(f"{token} {rank}")
        self._coordinator.watch()

    def say(self, text: str) -> None:
        """Send a line to the coordinator, who hears all workers."""
        self._coordinator.send(text)

    def hear(self) -> str:
        """Wait for a line that the coordinator tells."""
        return self._coordinator.received.get()

    def begin(self) -> int:
        """Wait until the training begins and return the number of steps to begin after."""
        return int(self._coordinator.received.get().removeprefix("begin "))

    def next_step(self) -> bool:
        """Wait for the coordinator and return whether there is a next step."""
        return self._coordinator.received.get() == "step"

    def close(self) -> None:
        """Close the connection."""
        self._coordinator.close()
