"""Messages between a server and the processes that decode its images: a line of JSON, then pixels as they are.

Nothing that comes back from a process that read a hostile file is unpickled.
"""

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from cellsparse_common.imaging.layout import Header

_MOST_LINE = 2**20
"""Most bytes of a line: names of channels and a sentence."""


def send_line(line: socket.socket, message: Mapping[str, Any]) -> None:
    """Send a message.

    Raises:
        OSError: The other end is closed.
    """
    line.sendall(json.dumps(message).encode() + b"\n")


def wait_until(line: socket.socket, deadline: float) -> None:
    """Let the next call on a socket wait until a deadline at most, seconds of the monotonic clock.

    Raises:
        TimeoutError: It has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    line.settimeout(left)


def receive_line(line: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """Return the next message, and take no byte of what follows it.

    Args:
        line: The socket.
        deadline: Until when to wait, seconds of the monotonic clock; None: until the other end is closed.

    Raises:
        EOFError: The other end was closed.
        ValueError: What came is no message.
        TimeoutError: The message has not come until the deadline.
    """
    data = bytearray()
    while not data.endswith(b"\n"):
        if deadline is not None:
            wait_until(line, deadline)
        # Looks first, so that the bytes behind the line stay where they are.
        seen = line.recv(4096, socket.MSG_PEEK)
        if not seen:
            raise EOFError
        end = seen.find(b"\n")
        data += line.recv(end + 1 if end >= 0 else len(seen))
        if len(data) > _MOST_LINE:
            raise ValueError("a message is too long")
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a message is no object")
    return message


def header_to_json(header: Header) -> dict[str, Any]:
    """Return a header as a message."""
    return {
        "shape": [int(length) for length in header.shape],
        "axes": header.axes,
        "dtype": header.dtype.newbyteorder("=").str,
        "spacing": [float(each) for each in header.spacing],
        "channels": list(header.channels),
    }


def header_from_json(message: Mapping[str, Any]) -> Header:
    """Return the header in a message.

    Raises:
        ValueError, KeyError, TypeError: There is none.
    """
    dtype = np.dtype(str(message["dtype"]))
    if dtype.kind not in "biuf":
        raise ValueError(f"{dtype} is no type of pixels")
    shape = tuple(int(length) for length in message["shape"])
    axes = str(message["axes"])
    if any(length < 0 for length in shape) or len(axes) != len(shape):
        raise ValueError(f"{shape} is no shape of the axes {axes}")
    return Header(
        shape=shape,
        axes=axes,
        dtype=dtype,
        spacing=tuple(float(each) for each in message["spacing"]),
        channels=tuple(str(each) for each in message["channels"]),
    )
