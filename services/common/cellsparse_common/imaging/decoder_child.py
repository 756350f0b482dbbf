"""The process that decodes images for a server: it forks children that do so, with limits on their memory and time.

    python -m cellsparse_common.imaging.decoder_child DESCRIPTOR

DESCRIPTOR is a Unix socket. With each byte comes another socket, for a new child, which decodes one image after the
other until the server closes it. The forking process reads nothing of any image, so that no image can harm it. It ends
with the server.
"""

import ctypes
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NoReturn

import numpy as np

from cellsparse_common.errors import CellsparseError, ResourceExhausted
from cellsparse_common.imaging import images
from cellsparse_common.imaging.decoder_wire import header_to_json, receive_line, send_line
from cellsparse_common.imaging.disk_array import in_bands
from cellsparse_common.imaging.file_content import map_content
from cellsparse_common.imaging.layout import Header
from cellsparse_common.imaging.process_limits import memory_in_use, set_limit

ROOM = 256 * 2**20
"""Bytes that decoding may take besides copies of the file and of the pixels."""
_FILES, _PIXELS = 3, 4
"""Most copies of the file and of the decoded pixels."""
SECONDS, BYTES_PER_SECOND = 60.0, 4 * 2**20
_DIE_WITH_PARENT = 1


def seconds_for(size: int) -> float:
    """Return how long a file or image of so many bytes may take, seconds."""
    return SECONDS + size / BYTES_PER_SECOND


def main() -> None:
    """Fork a process for each image until the server is gone."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets children that ended
    for number in (signal.SIGINT, signal.SIGTERM):  # the server ends first, and this process with it
        signal.signal(number, signal.SIG_IGN)
    _load()
    own = os.getpid()
    gc.freeze()  # so that children share the memory of what was loaded
    while True:
        try:
            order, sockets, *_ = socket.recv_fds(orders, 1, 1)
        except OSError:
            return
        if not order or not sockets:
            return
        if os.fork() == 0:
            orders.close()
            _work(socket.socket(fileno=sockets[0]), own)
        for each in sockets:
            os.close(each)


def _work(line: socket.socket, parent: int) -> NoReturn:
    """Decode images until the server closes the line."""
    try:
        _die_with(parent)
        send_line(line, {"pid": os.getpid()})
        base = memory_in_use()
        while True:
            answer(line, base)
    except (EOFError, OSError):
        pass  # the server needs no more, refused an image, or is gone
    except Exception:  # noqa: BLE001 - nothing is above this
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def answer(line: socket.socket, base: int) -> None:
    """Decode one image, and send it or the sentence that refuses it.

    Args:
        line: To the server.
        base: Bytes of address space that this process took before the first image.
    """
    request = receive_line(line)
    size = int(request["size"])
    _allow(base + ROOM + _FILES * size, size)
    try:
        data = _receive_file(line, size, mapped=bool(request["mapped"]))
        found = images.decode_here(data, _checked_by(line, base, size), **request["options"])
    except (CellsparseError, MemoryError) as error:
        send_line(line, _refusal(error))
        return
    pixels = Header(shape=found.array.shape, axes=found.axes, dtype=found.array.dtype)
    about = {**header_to_json(pixels), "spacing": list(found.spacing), "channels": list(found.channels)}
    send_line(line, {"image": about})
    for rows in in_bands(found.array):
        line.sendall(rows.astype(rows.dtype.newbyteorder("="), order="C", copy=False).tobytes())


def _checked_by(line: socket.socket, base: int, size: int) -> Any:
    """Return what lets the server check an image's header, and then allows the memory and time for its pixels."""

    def check(header: Header) -> None:
        send_line(line, {"header": header_to_json(header)})
        receive_line(line)  # without it, the server has refused the image and closed the line
        _allow(base + ROOM + _FILES * size + _PIXELS * header.nbytes, size + header.nbytes)

    return check


def _allow(memory: int, size: int) -> None:
    """Limit the address space, and the processor time from now on, of a file or image of so many bytes."""
    set_limit("AS", memory)
    set_limit("CPU", int(time.process_time() + seconds_for(size)))


def _receive_file(line: socket.socket, size: int, *, mapped: bool) -> bytes:
    if mapped:
        _, descriptors, *_ = socket.recv_fds(line, 1, 1)
        return map_content(descriptors[0])
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = line.recv_into(view[done:])
        if not count:
            raise EOFError
        done += count
    del view
    return bytes(data)


def _refusal(error: Exception) -> Mapping[str, Any]:
    if isinstance(error, MemoryError):
        return {"kind": ResourceExhausted.__name__, "message": "", "violations": []}
    assert isinstance(error, CellsparseError)
    return {"kind": type(error).__name__, "message": error.message, "violations": error.violations}


def _die_with(parent: int) -> None:
    """End this process when its parent ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _load() -> None:
    """Load what decoding loads, once for all children, with files of our own."""
    import imagecodecs
    from PIL import Image as Pillow

    pixels = np.zeros((8, 8, 3), np.uint8)
    picture = BytesIO()
    Pillow.fromarray(pixels).save(picture, "JPEG")
    for data in (images.encode_tiff(pixels), picture.getvalue()):
        images.decode_image(data, max_pixels=pixels.size)
    for codec in ("lzw", "zstd", "lzma", "packbits", "jpeg8", "blosc"):
        getattr(imagecodecs, f"{codec}_decode")  # loads its library


if __name__ == "__main__":
    main()
