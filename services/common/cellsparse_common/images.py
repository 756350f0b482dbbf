"""Microscopy images: safe reading of uploaded TIFF and PNG files, deterministic writing, grey values for training.

Sizes are checked from the header before a pixel is decoded. An image here has axes YX or YXC with 2 to 4 channels.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import tifffile

from cellsparse_common import png_file, tiff_file
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.image_layout import Header, channel_axis, check_dtype, check_size


@dataclass(frozen=True, kw_only=True)
class Image:
    """One 2D plane."""

    array: npt.NDArray[np.generic]
    """Pixels in the order of `axes`: any integer type or a floating point type."""
    axes: str
    """YX, or YXC with 2 to 4 channels."""


def read_header(data: bytes, field: str = "image") -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Return (shape, dtype) as the file's header tells them; nothing is decoded.

    Args:
        data: A TIFF or PNG file.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: Not a TIFF or PNG file, or its header is broken.
    """
    header = (png_file if _is_png(data, field) else tiff_file).read_header(data, field)
    return header.shape, header.dtype


def decode_image(data: bytes, *, max_pixels: int, field: str = "image", indices: bool = False) -> Image:
    """Decode an uploaded image.

    Args:
        data: A TIFF file (any flavour, lossless compression) or a PNG file.
        max_pixels: Most pixels (height x width) allowed.
        field: Name of the request's field, for messages.
        indices: Whether a palette PNG gives its indices, as for label images, or its colours.

    Returns:
        The image with the file's own type, except that booleans become uint8 0 and 1. One channel is squeezed away,
        several are the last axis; transparency is a channel like any other.

    Raises:
        InvalidArgument: Not one 2D plane of 1 to 4 channels, not readable, or values that are not finite numbers.
        ResourceExhausted: More than `max_pixels`.
    """

    def check(header: Header) -> None:
        check_size(header, max_pixels, field)
        check_dtype(header, field)
        channel_axis(header, field)

    if _is_png(data, field):
        header = png_file.read_header(data, field)
        check(header)
        array = png_file.decode(data, field, indices=indices)
        header = Header(shape=array.shape, axes="YXS"[: array.ndim], dtype=array.dtype)
    else:
        array, header = tiff_file.decode(data, field, check)
    return _normalised(array, channel_axis(header, field), field)


def encode_tiff(array: npt.NDArray[np.generic]) -> bytes:
    """Return a zlib-compressed TIFF file; the same array always gives the same bytes.

    Args:
        array: Axes YX or YXC, any integer type, float32 or float64.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        np.ascontiguousarray(array),
        photometric="rgb" if array.ndim == 3 and array.shape[2] in (3, 4) else "minisblack",
        planarconfig="contig" if array.ndim == 3 else None,
        compression="zlib",
        compressionargs={"level": 6},
        metadata=None,
        software=False,
        datetime=False,
    )
    return buffer.getvalue()


def to_gray(array: npt.NDArray[np.generic], channel: int | None = None) -> npt.NDArray[np.float32]:
    """Return one grey plane.

    Args:
        array: Axes YX or YXC.
        channel: Which channel, from 0; None means the mean over channels.

    Returns:
        float32, axes YX.

    Raises:
        InvalidArgument: There is no such channel.
    """
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channel is not None and not 0 <= channel < channels:
        raise InvalidArgument(f"The image has {channels} channel(s); channel {channel} does not exist.", "channel")
    if array.ndim == 2:
        return array.astype(np.float32)
    if channel is not None:
        return array[:, :, channel].astype(np.float32)
    return np.asarray(array.mean(axis=2, dtype=np.float64), dtype=np.float32)


def normalize(gray: npt.NDArray[np.float32], lower: float, upper: float) -> npt.NDArray[np.float32]:
    """Scale grey values so that two percentiles become 0 and 1, and clip to that range.

    Args:
        gray: Axes YX, finite.
        lower: Percentile that becomes 0, from 0 to 100.
        upper: Percentile that becomes 1, from 0 to 100, above `lower`.

    Returns:
        float32 in [0, 1], axes YX; zeros where the two percentiles are equal.
    """
    low, high = (float(value) for value in np.percentile(gray, (lower, upper)))
    if not high > low:
        return np.zeros(gray.shape, np.float32)
    # In float64: a range as small as the smallest float32 must not overflow the quotient.
    scaled: npt.NDArray[np.float64] = (gray.astype(np.float64) - low) / (high - low)
    return scaled.clip(0.0, 1.0).astype(np.float32)


def _is_png(data: bytes, field: str) -> bool:
    """Tell PNG (True) from TIFF (False) by the first bytes.

    Raises:
        InvalidArgument: It is neither.
    """
    if data.startswith(png_file.SIGNATURE):
        return True
    if data[:4] in tiff_file.SIGNATURES:
        return False
    what = f"starts with {bytes(data[:8])!r}" if data else "is empty"
    raise InvalidArgument(f"The {field} is not a TIFF or PNG file: it {what}.", field)


def _normalised(array: npt.NDArray[np.generic], channels: int | None, field: str) -> Image:
    """Put channels last, squeeze a single one, and check the values."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if channels is not None:
        array = np.ascontiguousarray(np.moveaxis(array, channels, 2))
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        position = tuple(int(at) for at in np.argwhere(~np.isfinite(array))[0])
        raise InvalidArgument(
            f"The {field} holds {array[position]} at {position}; allowed: finite numbers only.", field
        )
    return Image(array=array, axes="YX" if array.ndim == 2 else "YXC")
