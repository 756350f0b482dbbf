"""Cellpose's `_seg.npy` files: read in a process of its own, written so that stock Cellpose opens them."""

import io
import json
import math
import os
import pickle
import pickletools
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.cellpose_keys import LABELLED, MASKS, NUMBERS, OUTLINES
from cellsparse_common.imaging.pickled_arrays import MAGIC
from cellsparse_common.imaging.types import Labels, Mask

_SECONDS = 120.0
_KEPT = ("PATH", "PYTHONPATH", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
"""Of the environment: what Python needs. Passwords stay with this process."""


def is_npy(data: bytes) -> bool:
    """Tell by its first bytes whether a file is a `.npy` file."""
    return data.startswith(MAGIC)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """What a `.npy` file holds."""

    label: Labels
    """int32, axes YX or ZYX. Of Cellpose: 0 background, n > 0 cell n; -1 not labelled only in files of `encode_seg`."""
    cellpose: bool
    """Whether it is Cellpose's dictionary and not a plain array of integers, whose values may mean anything."""
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed."""


def read_masks(data: bytes, *, shape: tuple[int, ...], field: str) -> Masks:
    """Return the label image of a `_seg.npy` file, or of a `.npy` file of integers.

    The file is a pickle, which could run anything. A child process reads it with an unpickler that knows arrays, lists,
    dictionaries, text and numbers only, and that is bounded in memory and time.

    Args:
        data: The file.
        shape: (height, width) of the image, or (planes, height, width) of a stack.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: Not such a file, or the label image is of another size than the image.
        ResourceExhausted: Reading takes too long.
    """
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "cellsparse_common.imaging.cellpose_child", str(math.prod(shape))]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise ResourceExhausted(f"The {field} is a .npy file that takes longer than {_SECONDS:g} s.", field) from error
    line, _, content = done.stdout.partition(b"\n")
    if done.returncode or not line:
        raise InvalidArgument(
            f"The {field} is a .npy file that cannot be read within the limits on memory and time.", field
        )
    answer = json.loads(line)
    if "refused" in answer:
        raise InvalidArgument(f"The {field} is a .npy file that {answer['refused']}.", field)
    found = tuple(answer["shape"])
    label = np.frombuffer(content, "<i4").reshape(found).astype(np.int32)
    if len(found) == 3 and found[0] == 1 and len(shape) == 2:
        label = label[0]
    if label.shape != tuple(shape):
        has, wants = (" x ".join(map(str, size)) for size in (found, shape))
        raise InvalidArgument(f"The {field} is {has} pixels, its image {wants}; both must have the same size.", field)
    notes = ("its masks count from -1, as Cellpose before version 1 wrote them: -1 is background",)
    return Masks(label=label, cellpose=answer["cellpose"], notes=notes if answer["shifted"] else ())


def encode_seg(label: npt.NDArray[np.integer[Any]], image_name: str) -> bytes:
    """Return a `_seg.npy` file that stock Cellpose opens beside the image; the same labels give the same bytes.

    Cellpose's window takes cells 1 to n and knows nothing that is not labelled, so the masks are numbered so. Two keys
    of ours, which it ignores, keep the cells' own numbers and the labelled area.

    Args:
        label: Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n.
        image_name: Name of the image's file, which Cellpose looks for in the same folder.
    """
    numbers = np.unique(label[label > 0])
    cells = len(numbers)
    own = not np.array_equal(numbers, np.arange(1, cells + 1))
    masks = np.maximum(label, 0)
    if own:
        masks = np.where(masks > 0, np.searchsorted(numbers, masks) + 1, 0)
    masks = masks.astype(np.uint16 if cells < 2**16 - 1 else np.uint32)
    content: dict[str, Any] = {
        OUTLINES: np.where(_rim(masks), masks, 0).astype(masks.dtype),
        MASKS: masks,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(cells, bool),
        "filename": image_name,
        "flows": [[], [], [], [], [[]]],
        "diameter": None,
    }
    if (label < 0).any():
        content[LABELLED] = label >= 0
    if own:
        content[NUMBERS] = numbers.astype(np.int32)
    return _npy(content)


def _rim(masks: npt.NDArray[np.integer[Any]]) -> Mask:
    """Return which pixels have a pixel of another number beside them in their plane, or lie at the image's border."""
    rim = np.zeros(masks.shape, bool)
    for axis in (-2, -1):
        line = np.moveaxis(rim, axis, -1)
        values = np.moveaxis(masks, axis, -1)
        differs = values[..., 1:] != values[..., :-1]
        line[..., 1:] |= differs
        line[..., :-1] |= differs
        line[..., 0] = line[..., -1] = True
    return rim & (masks > 0)


def _npy(content: dict[str, Any]) -> bytes:
    """Return a `.npy` file with a dictionary as `numpy.save` writes it, for NumPy 1 and 2 alike."""
    entry = np.empty((), object)
    entry[()] = content
    stream = io.BytesIO()
    form: Any = np.lib.format  # its functions have no types
    form.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickled = pickle.dumps(entry, protocol=3)
    done = 0
    for code, argument, at in pickletools.genops(pickled):
        # NumPy 2 calls its core numpy._core, which NumPy 1 before 1.26 does not know; all know numpy.core.
        if at is not None and code.name == "GLOBAL" and str(argument).startswith("numpy._core."):
            stream.write(pickled[done:at] + b"cnumpy.core.")
            done = at + len(b"cnumpy._core.")
    stream.write(pickled[done:])
    return stream.getvalue()
