"""The process that reads a Cellpose `_seg.npy` file, with limits on its memory and time.

    python -m cellsparse_common.imaging.cellpose_child MOST_PIXELS < FILE

It writes one line of JSON and then the label image as raw int32: {"shape": [...], "labelled": bool}, or {"refused":
"..."}.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.cellpose_keys import LABELLED, MASKS, NUMBERS
from cellsparse_common.imaging.pickled_arrays import PickledArray, RefusedError, load

_ROOM = 256 * 2**20
_COPIES = 4
"""Of the file: as read, as unpickled, and the label image while its type is changed."""
_SECONDS = 20
_BYTES_PER_SECOND = 20 * 2**20


def limit(size: int) -> None:
    """Limit what this process may use for a file of a size, where the system knows such limits."""
    try:
        import resource
    except ImportError:
        return
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        used = 2**30
    for kind, most in (
        (resource.RLIMIT_AS, used + _ROOM + _COPIES * size),
        (resource.RLIMIT_CPU, _SECONDS + size // _BYTES_PER_SECOND),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, hard))
        except (ValueError, OSError):
            continue  # macOS has no limit on address space


def label_image(data: bytes, most_pixels: int) -> npt.NDArray[np.int32]:
    """Return the label image of a file: -1 where its extra key says so, else 0 background, n > 0 cell n.

    Raises:
        RefusedError: It holds none, or one that is too large.
    """
    found = load(data)
    about: dict[Any, Any] = {}
    if isinstance(found, PickledArray):
        entries = found.objects()
        if len(entries) != 1 or not isinstance(entries[0], dict):
            raise RefusedError("is not what Cellpose writes: a dictionary")
        about = entries[0]
        if not isinstance(about.get(MASKS), PickledArray):
            raise RefusedError(f"has no {MASKS!r}; open and save it in a newer Cellpose")
        found = about[MASKS].numbers(MASKS)
    if found.dtype.kind not in "biu" or found.ndim not in (2, 3):
        raise RefusedError(f"has {MASKS} of type {found.dtype} and shape {found.shape}; allowed: integers, 2D or 3D")
    if found.size > most_pixels:
        raise RefusedError(f"has {MASKS} of {found.size:,} pixels; allowed: at most {most_pixels:,}")
    if found.size and (int(found.max()) > 2**31 - 2 or int(found.min()) < -1):
        raise RefusedError(f"has {MASKS} from {found.min()} to {found.max()}; allowed: 0 to {2**31 - 2}")
    masks = found.astype(np.int32)
    if masks.min(initial=0) == -1:  # Cellpose before version 1 counted from -1, its background
        masks += 1
    return _ours(masks, about)


def _ours(masks: npt.NDArray[np.int32], about: dict[Any, Any]) -> npt.NDArray[np.int32]:
    """Restore what our own files hold besides: the cells' numbers, and what is not labelled."""
    if isinstance(about.get(NUMBERS), PickledArray):
        numbers = about[NUMBERS].numbers(NUMBERS)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or len(numbers) != masks.max(initial=0):
            raise RefusedError(f"has {NUMBERS} that do not fit its {MASKS}")
        masks = np.concatenate([np.zeros(1, np.int32), numbers.astype(np.int32)])[masks]
    if isinstance(about.get(LABELLED), PickledArray):
        labelled = about[LABELLED].numbers(LABELLED)
        if labelled.shape != masks.shape or labelled.dtype.kind not in "bu":
            raise RefusedError(f"has {LABELLED} that does not fit its {MASKS}")
        masks = np.where(labelled.astype(bool), masks, np.int32(-1))
    return masks


def main() -> None:
    """Answer one file."""
    data = sys.stdin.buffer.read()
    limit(len(data))
    try:
        label = label_image(data, int(sys.argv[1]))
        answer, content = json.dumps({"shape": label.shape}), label.astype("<i4").tobytes()
    except RefusedError as error:
        answer, content = json.dumps({"refused": str(error)}), b""
    except MemoryError:
        answer, content = json.dumps({"refused": "asks for more memory than such a file needs"}), b""
    sys.stdout.buffer.write(answer.encode() + b"\n" + content)


if __name__ == "__main__":
    main()
