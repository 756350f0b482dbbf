"""The images and labels that QuPath sends: PNG files in base64, as the Java runtime writes them.

The runtime's writer takes no image of 3 channels that is not RGB, of more than 4, or of 32 bits; QuPath then sends an
empty text. It writes 2 channels as "grey and alpha" and 4 as "RGB and alpha".
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import CellsparseError
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_gateway.qupath.refusals import from_error, unprocessable

NO_PIXELS = (
    "QuPath sent no pixels: PNG cannot hold this image (3 or more than 4 channels, or 32-bit). Show one channel and "
    "use Image > ... / convert to RGB, or use the Cellsparse script, which sends TIFF."
)
NO_FOREGROUND = (
    "No annotation has the class Foreground (spelled so): draw around a few cells, set their class to Foreground, and "
    "press Training again."
)
MANY_CELLS = 200
"""Number of cells in one label image from which QuPath's numbers are close to running out."""
_LARGEST_NUMBER = 255
_OPAQUE = 255
_FIRST_CELL = 2


@dataclass(frozen=True)
class Picture:
    """An image."""

    array: npt.NDArray[np.generic]
    """Axes YX or YXC."""

    @property
    def axes(self) -> str:
        """Its axes, YX or YXC."""
        return "YXC"[: self.array.ndim]

    def fingerprint(self) -> str:
        """Return the SHA-256 of its size, type and pixels, 64 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.array.shape} {self.array.dtype.str} ".encode())
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()

    def tiff(self) -> bytes:
        """Return it as a TIFF file."""
        return encode_tiff(self.array)


def read_picture(text: str, max_pixels: int) -> Picture:
    """Return the image of `b64img`.

    A file of 4 channels of 8 bits is RGB if its last channel is 255 everywhere: then that is transparency.

    Raises:
        Refusal: It holds no pixels, is broken or too large.
    """
    if not text.strip():
        raise unprocessable(NO_PIXELS)
    array = _decoded(text, max_pixels, "b64img", labels=False)
    if array.ndim == 3 and array.shape[2] == 4 and array.dtype == np.uint8 and (array[..., 3] == _OPAQUE).all():
        array = np.ascontiguousarray(array[..., :3])
    return Picture(array)


def read_labels(text: str | None, picture: Picture, max_pixels: int) -> npt.NDArray[np.integer[Any]]:
    """Return the label image of `b64lbl`: 0 not labelled, 1 background, n >= 2 cell n - 1.

    In a file with a palette the index is the label; its colours mean nothing.

    Raises:
        Refusal: There is none, none of its values is a cell, it has another size than the image, or its numbers have
            run out: QuPath then gives several cells one number.
    """
    if text is None or not text.strip():
        raise unprocessable("Training needs labels, and b64lbl is empty: send a PNG file in base64.")
    height, width = picture.array.shape[:2]
    labels: npt.NDArray[Any] = _decoded(text, max_pixels, "b64lbl", labels=True)
    if labels.ndim != 2:
        raise unprocessable(f"The b64lbl has {labels.shape[2]} channels; allowed: one, whose values are the labels.")
    if labels.shape != (height, width):
        has = " x ".join(map(str, labels.shape))
        raise unprocessable(f"The b64lbl is {has} pixels, b64img {height} x {width}; both must have the same size.")
    if labels.max() < _FIRST_CELL:
        raise unprocessable(NO_FOREGROUND)
    if labels.dtype == np.uint8 and labels.max() == _LARGEST_NUMBER:
        raise unprocessable(
            "The image has 254 or more annotations of the class Foreground: QuPath's label numbers run out, and cells "
            f"merge. Keep at most {MANY_CELLS} in one image."
        )
    return labels


def count_cells(labels: npt.NDArray[np.integer[Any]]) -> int:
    """Return the number of cells of a label image as `read_labels` answers it."""
    return int(np.unique(labels[labels >= _FIRST_CELL]).size)


def _decoded(text: str, max_pixels: int, field: str, *, labels: bool) -> npt.NDArray[np.generic]:
    try:
        data = base64.b64decode("".join(text.split()) if any(map(str.isspace, text[:1000])) else text, validate=True)
    except (binascii.Error, ValueError):
        raise unprocessable(f"The {field} is not base64 text.") from None
    try:
        return decode_image(data, max_pixels=max_pixels, field=field, labels=labels).array
    except CellsparseError as error:
        raise from_error(error) from None
