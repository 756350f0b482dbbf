"""How the processes of one training keep together: they begin at once, go on step by step, and end together.

Rank 0 listens, the others connect. Over these connections rank 0 says where to begin and whether there is another step,
and everybody says every `BEAT_SECONDS` that it is alive. A process that ends, hangs or can no longer be reached is so
noticed by all others within `SILENT_SECONDS`, whatever the framework's own operations are waiting for.

Messages are lines of text: "." alive, "begin N" after N steps, "go", "end"; and once, from those that connect, the
crew's word and their rank.
"""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable

from cellsparse_common.errors import Unavailable

BEAT_SECONDS = 2.0
SILENT_SECONDS = 20.0
"""A process that was silent for so long is lost."""
GREETING_SECONDS = 5.0
"""Who connects and does not say so soon who it is, is a stranger; others may wait behind it."""
_RETRY_SECONDS = 0.2
_LONGEST = 4096

Lost = Callable[[str], None]
"""Told, in a thread of its own, that a process is lost; what it is told is a sentence. It should end this process."""


class _Line:
    """A connection to one other process."""

    def __init__(self, connection: socket.socket, name: str, lost: Lost) -> None:
        connection.settimeout(SILENT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._reader = connection.makefile("rb")
        self._name = name
        self._lost = lost
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        """What the other said, without signs of life."""

    def send(self, text: str) -> None:
        """Say something; a connection that is gone is noticed by the thread that listens."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(text.encode() + b"\n")

    def attend(self) -> None:
        """Listen and show life from now on, in threads of their own."""
        for work in (self._listen, self._beat):
            threading.Thread(target=work, name=f"crew-{self._name}", daemon=True).start()

    def finish(self) -> None:
        """What ends from now on, ends as it should."""
        self._done.set()

    def first(self) -> str:
        """Return the first line; empty if there is none soon."""
        self._socket.settimeout(GREETING_SECONDS)
        try:
            return self._reader.readline(_LONGEST).decode(errors="replace").strip()
        except OSError:
            return ""

    def close(self) -> None:
        """Hang up."""
        self._done.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        sentence = f"{self._name} is gone."
        try:
            while text := self._reader.readline(_LONGEST):
                word = text.decode().strip()
                if word == "end":
                    self._done.set()
                if word != ".":
                    self.heard.put(word)
        except TimeoutError:
            sentence = f"{self._name} was silent for {SILENT_SECONDS:.0f} s."
        except (OSError, ValueError):
            pass
        if not self._done.is_set():
            self._lost(sentence)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            self.send(".")


class Leader:
    """Rank 0's side.

    Args:
        host: Address to listen on.
        port: TCP port.
        world: Number of processes, this one included.
        word: What the others must say to belong to this training's attempt.
        lost: See `Lost`.
    """

    def __init__(self, host: str, port: int, *, world: int, word: str, lost: Lost) -> None:
        self._listener = socket.create_server((host, port))
        self._world = world
        self._word = word
        self._lost = lost
        self._lines: dict[int, _Line] = {}

    def gather(self, seconds: float) -> None:
        """Wait until all are there.

        Raises:
            Unavailable: Not all came in time; names the missing ranks.
        """
        deadline = time.monotonic() + seconds
        while len(self._lines) < self._world - 1:
            self._listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                missing = ", ".join(str(rank) for rank in range(1, self._world) if rank not in self._lines)
                raise Unavailable(
                    f"Not all of the {self._world} processes were there within {seconds:.0f} s; missing: {missing}."
                ) from None
            self._greet(connection)
        self._listener.close()

    def begin(self, step: int) -> None:
        """Have all begin after a number of steps."""
        self._say(f"begin {step}")

    def go(self) -> None:
        """Have all take the next step."""
        self._say("go")

    def end(self) -> None:
        """Have all end: there is no next step."""
        for line in self._lines.values():
            line.finish()
        self._say("end")

    def close(self) -> None:
        """Hang up."""
        self._listener.close()
        for line in self._lines.values():
            line.close()

    def _say(self, text: str) -> None:
        for line in self._lines.values():
            line.send(text)

    def _greet(self, connection: socket.socket) -> None:
        """Take a process in, unless it is a stranger."""
        line = _Line(connection, "a stranger", self._lost)
        word, _, rank = line.first().rpartition(" ")
        if word != self._word or not rank.isdigit() or not 0 < int(rank) < self._world or int(rank) in self._lines:
            line.close()
            return
        line = _Line(connection, f"Rank {rank} of {self._world}", self._lost)
        self._lines[int(rank)] = line
        line.attend()


class Follower:
    """The side of any other rank.

    Args:
        host: Where rank 0 listens.
        port: Its TCP port.
        rank: Number of this process, from 1.
        word: As the leader's.
        lost: See `Lost`.
        seconds: How long rank 0 may take until it listens.

    Raises:
        Unavailable: It does not listen in time.
    """

    def __init__(self, host: str, port: int, *, rank: int, word: str, lost: Lost, seconds: float) -> None:
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
        self._line = _Line(connection, "Rank 0", lost)
        self._line.send(f"{word} {rank}")
        self._line.attend()

    def begin(self) -> int:
        """Wait for the start and return the number of steps to begin after."""
        return int(self._line.heard.get().removeprefix("begin "))

    def next(self) -> bool:
        """Wait for the word and return whether there is another step."""
        return self._line.heard.get() == "go"

    def close(self) -> None:
        """Hang up."""
        self._line.close()
