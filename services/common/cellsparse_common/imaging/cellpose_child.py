"""The process that reads a Cellpose `_seg.npy` file, with limits on its memory and time.

    python -m cellsparse_common.imaging.cellpose_child MOST_PIXELS < FILE

It writes one line of JSON and then the label image as raw int32: {"shape": [...], "cellpose": bool, "shifted": bool},
or {"refused": "..."}.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.cellpose_keys import LABELLED, MASKS, NUMBERS, OUTLINES
from cellsparse_common.imaging.pickled_arrays import PickledArray, RefusedError, load
from cellsparse_common.imaging.process_limits import memory_in_use, set_limit

_ROOM = 256 * 2**20
_COPIES = 4
"""Of the file: as read, as unpickled, and the label image while its type is changed."""
_SECONDS = 20
_BYTES_PER_SECOND = 20 * 2**20


def limit(size: int) -> None:
    """Limit what this process may use for a file of a size."""
    set_limit("AS", memory_in_use() + _ROOM + _COPIES * size)
    set_limit("CPU", _SECONDS + size // _BYTES_PER_SECOND)


@dataclass(frozen=True, kw_only=True)
class Content:
    """The label image of a file."""

    values: npt.NDArray[np.int32]
    """Axes YX or ZYX. Of Cellpose: -1 where an extra key of ours says so, else 0 background, n > 0 cell n."""
    cellpose: bool = True
    """Whether it is Cellpose's dictionary and not a plain array, whose values may mean anything."""
    shifted: bool = False
    """Whether the cells were numbered from 0 and the background was -1."""


def read_content(data: bytes, most_pixels: int) -> Content:
    """Return what a file holds.

    Raises:
        RefusedError: It holds none, or one that is too large.
    """
    found = load(data)
    about: dict[Any, Any] | None = None
    if isinstance(found, PickledArray):
        entries = found.objects()
        about = entries[0] if len(entries) == 1 else None
        if not isinstance(about, dict):
            raise RefusedError("is not what Cellpose writes: a dictionary")
        if not isinstance(about.get(MASKS), PickledArray):
            raise RefusedError(f"has no {MASKS!r}; open and save it in a newer Cellpose")
        found = about[MASKS].numbers(MASKS)
    what = MASKS if about is not None else "values"
    if found.dtype.kind not in "biu" or found.ndim not in (2, 3):
        raise RefusedError(f"has {what} of type {found.dtype} and shape {found.shape}; allowed: integers, 2D or 3D")
    if found.size > most_pixels:
        raise RefusedError(f"has {what} of {found.size:,} pixels; allowed: at most {most_pixels:,}")
    if found.size and (int(found.max()) > 2**31 - 2 or int(found.min()) < -1):
        raise RefusedError(f"has {what} from {found.min()} to {found.max()}; allowed: -1 to {2**31 - 2}")
    masks = found.astype(np.int32)
    if not isinstance(about, dict):
        return Content(values=masks, cellpose=False)
    shifted = masks.min(initial=0) == -1
    if shifted:  # Cellpose before version 1 counted from -1, its background
        _refuse_unlabelled(about)
        masks += 1
    return Content(values=_ours(masks, about), shifted=bool(shifted))


def _refuse_unlabelled(about: dict[Any, Any]) -> None:
    """Refuse a file in which only the masks count from -1: somebody else meant something by it."""
    outlines = about.get(OUTLINES)
    if isinstance(outlines, PickledArray) and outlines.numbers(OUTLINES).min(initial=0) >= 0:
        raise RefusedError(
            f"has -1 in its {MASKS} and not in its {OUTLINES}; Cellpose knows no pixels that are not labelled: save "
            "such labels as an int32 TIFF"
        )


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
        found = read_content(data, int(sys.argv[1]))
        about = {"shape": found.values.shape, "cellpose": found.cellpose, "shifted": found.shifted}
        answer, content = json.dumps(about), found.values.astype("<i4").tobytes()
    except RefusedError as error:
        answer, content = json.dumps({"refused": str(error)}), b""
    except MemoryError:
        answer, content = json.dumps({"refused": "asks for more memory than such a file needs"}), b""
    sys.stdout.buffer.write(answer.encode() + b"\n" + content)


if __name__ == "__main__":
    main()
