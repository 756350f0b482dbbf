"""Decoding in a process of its own: an image that crashes, fills or hangs its decoder harms no server.

A server has one process that forks children which decode (see `decoder_child`). It is started with the first image that
needs it, and anew when it has died. A child that decoded a small image well gets the next one: a fork takes longer than
that. One that crashes, hangs or refuses an image gets no other. What stays in the server is what only Python reads, or
what has one size that the header gives: PNG files, and TIFF files without compression.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import Busy, CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.decoder_wire import header_from_json, receive_line, send_line, wait_until
from cellsparse_common.imaging.disk_array import in_bands, zeros
from cellsparse_common.imaging.file_content import MappedFile
from cellsparse_common.imaging.layout import Header

_LOG = logging.getLogger(__name__)
COMMAND = ("-P", "-m", "cellsparse_common.imaging.decoder_child")
START_SECONDS = 120.0
"""How long a child may take to start."""
SECONDS, BYTES_PER_SECOND = 120.0, 2 * 2**20
"""How long an image may take: so many seconds, and one for so many bytes of its file and pixels."""
MOST_IDLE = 2
"""Most children that wait for another image."""
MOST_IMAGES = 100
"""Most images that one child decodes."""
LARGEST_KEPT = 32 * 2**20
"""Most bytes of file and pixels after which a child is kept: after larger ones its memory is given back."""
_KEPT = ("PATH", "PYTHONPATH", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH", "TMPDIR")
"""Of the environment: what Python needs. Passwords stay with this process."""
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""The last one gives an image's memory back to the system once it is decoded."""
_REFUSALS = {kind.__name__: kind for kind in (InvalidArgument, ResourceExhausted)}


class CrashedError(Exception):
    """The child that decoded an image is gone."""


@dataclass(kw_only=True)
class _Child:
    """A process that decodes, and ends when its line is closed."""

    line: socket.socket
    pid: int
    parent: subprocess.Popen[bytes]
    """The process that forked it."""
    images: int = 0
    """How many it has decoded."""


class Decoder:
    """Decodes images in processes of their own. Safe to use from many threads.

    Args:
        command: Arguments of Python for the process that forks.
        seconds: How long an image may take, beside the time for its bytes.
    """

    def __init__(self, command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> None:
        self._command = command
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._idle: list[_Child] = []

    def decode(
        self, data: bytes, field: str, check: Callable[[Header], None], options: dict[str, Any]
    ) -> tuple[Header, npt.NDArray[np.generic]]:
        """Decode an image.

        Args:
            data: The file.
            field: Name of the request's field, for messages.
            check: Called with the header before a pixel is decoded; raises to refuse it.
            options: Arguments of `images.decode_here`.

        Returns:
            Axes, spacing and channels, and the pixels.

        Raises:
            InvalidArgument: It cannot be decoded; or its decoder crashed, took too much memory, or sent nonsense.
            ResourceExhausted: It took too long, or is larger than allowed.
            Busy: No process can be started now.
        """
        kept = self._kept()
        if kept is not None:
            with suppress(CrashedError):  # an image before this one may have broken it
                return self._decode(kept, data, field, check, options)
        for _ in range(2):
            child = self._new()
            try:
                return self._decode(child, data, field, check, options)
            except CrashedError:
                if child.parent.poll() is None:
                    break  # else all children ended with the process that had forked them
        raise InvalidArgument(
            f"The {field} cannot be decoded: its decoder crashed, or took more memory than such a file needs. The file "
            "is broken, or made to break things.",
            field,
        )

    def _decode(
        self, child: "_Child", data: bytes, field: str, check: Callable[[Header], None], options: dict[str, Any]
    ) -> tuple[Header, npt.NDArray[np.generic]]:
        """Let a child decode an image (see `decode`); it is kept for others if it did so well.

        Raises:
            CrashedError: The child is gone.
        """
        line, size = child.line, len(data)
        kept = False
        deadline = self._deadline(size)
        try:
            wait_until(line, deadline)
            _send_file(line, data, options)
            message = receive_line(line, deadline)
            if "header" not in message:
                raise _refusal(message, field)
            header = header_from_json(message["header"])
            check(header)
            deadline = self._deadline(size + header.nbytes)
            wait_until(line, deadline)
            send_line(line, {})
            message = receive_line(line, deadline)
            if "image" not in message:
                raise _refusal(message, field)
            about = header_from_json(message["image"])
            if about.nbytes > header.nbytes:
                raise ValueError("more pixels than the header has")
            pixels = _receive_pixels(line, about, deadline)
            kept = size + about.nbytes <= LARGEST_KEPT and self._keep(child)
            return about, pixels
        except TimeoutError:
            _kill(child)
            raise ResourceExhausted(f"The {field} takes too long to decode; save it again, or as PNG.", field) from None
        except (EOFError, ConnectionError) as error:
            raise CrashedError from error
        except (ValueError, KeyError, TypeError):
            raise InvalidArgument(f"The {field} cannot be decoded: its decoder sent nonsense.", field) from None
        finally:
            if not kept:
                line.close()  # which ends the child

    def close(self) -> None:
        """End the process that forks, and with it its children; the next image starts another one."""
        self._end(self._process)

    def _end(self, process: "subprocess.Popen[bytes] | None") -> None:
        """End a process that forks, unless another one is there already."""
        with self._lock:
            if process is None or self._process is not process:
                return
            orders, children = self._orders, self._idle
            self._process, self._orders, self._idle = None, None, []
        for child in children:
            child.line.close()
        if orders is not None:
            orders.close()
        process.kill()
        process.wait()

    def _deadline(self, size: int) -> float:
        """Return until when an image of so many bytes may take, in seconds of the monotonic clock."""
        return time.monotonic() + self._seconds + size / BYTES_PER_SECOND

    def _kept(self) -> "_Child | None":
        """Return a child that has decoded something already and waits."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, child: "_Child") -> bool:
        """Keep a child for another image; return False if it should end."""
        child.images += 1
        with self._lock:
            if len(self._idle) >= MOST_IDLE or child.images >= MOST_IMAGES:
                return False
            self._idle.append(child)
            return True

    def _new(self) -> "_Child":
        """Return a fresh child.

        Raises:
            Busy: None can be started.
        """
        for _ in range(2):  # the process that forks may have been killed, once
            ours, theirs = socket.socketpair()
            parent = None
            try:
                with theirs, self._lock:
                    parent, orders = self._running()
                    socket.send_fds(orders, [b"\1"], [theirs.fileno()])
                pid = int(receive_line(ours, time.monotonic() + START_SECONDS)["pid"])
                return _Child(line=ours, pid=pid, parent=parent)
            except (EOFError, OSError, ValueError, KeyError):
                _LOG.warning("the process that decodes images gives no child; another one is started")
                ours.close()
                self._end(parent)
        raise Busy("Nothing can be decoded now: no process can be started for it. Try again in a moment.")

    def _running(self) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        """Return the process that forks and the line to it; it is started if there is none."""
        if self._process is not None and self._process.poll() is not None:
            _LOG.warning("the process that decodes images ended with %s; another one is started", self._process.poll())
            self._process = None
            if self._orders is not None:
                self._orders.close()
        if self._process is None or self._orders is None:
            environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _ENVIRONMENT
            ours, theirs = socket.socketpair()
            ours.settimeout(START_SECONDS)
            with theirs:
                descriptor = theirs.fileno()
                self._process = subprocess.Popen(
                    [sys.executable, *self._command, str(descriptor)], pass_fds=(descriptor,), env=environment
                )
            self._orders = ours
        return self._process, self._orders


_decoder: Decoder | None = None


def decode_apart(decoder: Decoder | None = None) -> None:
    """Decode images of this process in processes of their own from now on.

    Args:
        decoder: Does so; None: one that is made now.
    """
    global _decoder
    _decoder = decoder or Decoder()


def decoder() -> Decoder | None:
    """Return what decodes images apart from this process; None: this process does so itself."""
    return _decoder


def _send_file(line: socket.socket, data: bytes, options: dict[str, Any]) -> None:
    mapped = isinstance(data, MappedFile)
    send_line(line, {"size": len(data), "mapped": mapped, "options": options})
    if isinstance(data, MappedFile):
        socket.send_fds(line, [b"\1"], [data.file.fileno()])
        return
    with suppress(BrokenPipeError):  # it may have refused the image already
        line.sendall(data)


def _receive_pixels(line: socket.socket, about: Header, deadline: float) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] = zeros(about.shape, about.dtype)
    for rows in in_bands(array):
        view, done = rows.reshape(-1).view(np.uint8).data, 0
        while done < len(view):
            wait_until(line, deadline)
            count = line.recv_into(view[done:])
            if not count:
                raise EOFError
            done += count
    return array


def _refusal(message: dict[str, Any], field: str) -> CellsparseError:
    kind = _REFUSALS[message["kind"]]
    if not message["message"]:
        return kind(f"The {field} takes more memory to decode than such a file needs; save it again.", field)
    return kind(str(message["message"]), violations=[(str(name), str(said)) for name, said in message["violations"]])


def _kill(child: _Child) -> None:
    """Kill a child that does not end by itself; it is alive as long as its line is open."""
    _LOG.warning("a process that decodes an image takes too long and is killed")
    with suppress(ProcessLookupError, PermissionError):
        os.kill(child.pid, signal.SIGKILL)
