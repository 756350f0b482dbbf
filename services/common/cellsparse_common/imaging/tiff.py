"""Reading TIFF files of any flavour through tifffile: header first, then pixels. Nothing in the file is trusted.

Sizes, offsets and compressions are checked before anything is allocated, so that a small file cannot request much
memory. Files are opened from memory only: an OME header naming other files reads none of them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from cellsparse_common.errors import CellsparseError, InvalidArgument
from cellsparse_common.imaging.disk_array import DISK_BYTES, release, zeros
from cellsparse_common.imaging.file_content import ContentReader, open_content
from cellsparse_common.imaging.jpeg_header import jpeg_pixels
from cellsparse_common.imaging.layout import Header
from cellsparse_common.imaging.quiet import quiet
from cellsparse_common.imaging.tiff_channels import read_channel_names
from cellsparse_common.imaging.tiff_directories import check_directories
from cellsparse_common.imaging.tiff_series import choose_series, read_time, times_of, without_time
from cellsparse_common.imaging.tiff_spacing import Spacing, read_spacing

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_JPEG = 7
_READ_BYTES = 2**22
_YCBCR = 6
_UNREAD_COLOURS = {5: "CMYK", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32845: "LogLuv"}
# Codecs that write at most as many bytes as the TIFF header announces. JPEG has a second header in each strip, which
# is compared with the first. Whole-slide images use it. JPEG 2000, WebP and the like would need the same care.
UNCOMPRESSED = 1
_COMPRESSIONS = {
    UNCOMPRESSED: "none",
    5: "LZW",
    _JPEG: "JPEG",
    8: "deflate",
    32946: "deflate",
    32773: "PackBits",
    34925: "LZMA",
    50000: "Zstd",
}


def decode(
    data: bytes,
    field: str,
    check: Callable[[Header], None],
    *,
    series: int | None = None,
    time: int | None = None,
) -> tuple[npt.NDArray[np.generic], Header]:
    """Return the pixels in the order of the file's axes, native byte order, and the header.

    Args:
        data: The file.
        field: Name of the request's field, for messages.
        check: Called with the header before anything is decoded; raises to refuse it.
        series: Which image of a file that holds several, from 0; None: the only one.
        time: Which time point, from 0; None: all, which `check` refuses if there are several.

    Raises:
        InvalidArgument: Truncated, broken, or compressed in a way that is not read.
    """
    check_directories(data, field)
    try:
        source: Any = open_content(data)
        with quiet("tifffile"), tifffile.TiffFile(source, _multifile=False) as file:
            chosen = choose_series(file, series, field)
            header = _header(file, chosen, read_spacing(file), field, time)
            check(header)
            _check_segments(chosen, data, field)
            if time is not None:
                array = np.asarray(read_time(file, chosen, time))
            elif header.nbytes >= DISK_BYTES:  # decoded part by part into a file: only what is looked at is in memory
                array = _decode_to_disk(chosen, source)
            else:
                array = np.asarray(chosen.asarray(maxworkers=1))
            return array.reshape(header.shape).astype(header.dtype.newbyteorder("="), copy=False), header
    except CellsparseError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise InvalidArgument(f"The {field} is a truncated or broken TIFF file: {reason}.", field) from error


def _decode_to_disk(series: Any, source: Any) -> npt.NDArray[np.generic]:
    """Decode a series into a file, letting go of what is decoded after every few MiB that were read."""
    # As a plain array: tifffile would wait until a memory map is on the disk.
    out = zeros(series.shape, series.dtype).view(np.ndarray)
    if isinstance(source, ContentReader):
        source.on_read = functools.partial(release, out)
    array = np.asarray(series.asarray(maxworkers=1, buffersize=_READ_BYTES, out=out))
    release(out)
    return array


def count_times(data: bytes, field: str, series: int | None = None) -> int:
    """Return the number of time points of a TIFF file, 1 for one without such an axis.

    Raises:
        InvalidArgument: Truncated or broken, or the image is not in it (see `tiff_series.choose_series`).
    """
    check_directories(data, field)
    source: Any = open_content(data)
    try:
        with quiet("tifffile"), tifffile.TiffFile(source, _multifile=False) as file:
            return times_of(choose_series(file, series, field))
    except CellsparseError:
        raise
    except Exception as error:
        raise InvalidArgument(f"The {field} is a truncated or broken TIFF file: {error}.", field) from error


def _header(file: Any, series: Any, spacing: Spacing, field: str, time: int | None) -> Header:
    """Return a series' header without its axes of length 1, after checking that its pixels can be read."""
    page = series.keyframe
    if series.dtype is None or page.dtype is None:
        raise InvalidArgument(f"The {field} is a TIFF file whose pixel type is not known.", field)
    if int(page.compression) not in _COMPRESSIONS:
        allowed = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        name = getattr(page.compression, "name", page.compression)
        raise InvalidArgument(f"The {field} is a TIFF file with compression {name}; allowed: {allowed}.", field)
    colours = _UNREAD_COLOURS.get(int(page.photometric), "")
    if int(page.photometric) == _YCBCR and int(page.compression) != _JPEG:  # tifffile gives such values as they are
        colours = "YCbCr"
    if colours:
        raise InvalidArgument(f"The {field} is a TIFF file in {colours} colours; allowed: grey and RGB.", field)
    sizes = [int(length) for length in series.shape]
    if len(sizes) != len(series.axes):
        raise InvalidArgument(f"The {field} is a broken TIFF file: {len(sizes)} axes named {series.axes}.", field)
    shape, axes = (tuple(sizes), series.axes) if time is None else without_time(series, time, field)
    kept = [at for at, axis in enumerate(axes) if shape[at] != 1 or axis in "YX"]
    channels = math.prod(shape[at] for at in kept if axes[at] in "CS")
    return Header(
        shape=tuple(shape[at] for at in kept),
        axes="".join(axes[at] for at in kept),
        dtype=np.dtype(series.dtype),
        spacing=spacing,
        channels=read_channel_names(file, series, channels),
    )


def _check_segments(series: Any, data: bytes, field: str) -> None:
    """Refuse strips and tiles that are missing, empty, oversized, beyond the end of the file, or the same bytes."""
    size = len(data)
    left = size
    missing = InvalidArgument(f"The {field} is a truncated TIFF file: pixels lie beyond its {size:,} bytes.", field)
    if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
        raise missing
    page = series.keyframe
    if math.prod(page.chunks) > max(4 * math.prod(page.shape), 1 << 22):
        raise InvalidArgument(f"The {field} is a broken TIFF file: tiles of {page.chunks} pixels.", field)
    for each in series.pages:
        if each is None or len(each.dataoffsets) < math.prod(page.chunked):
            raise missing
        for offset, count in zip(each.dataoffsets, each.databytecounts, strict=True):
            if offset <= 0 or count <= 0 or offset + count > size:
                raise missing
            left -= count
            if page.compression == _JPEG and jpeg_pixels(data[offset : offset + count]) > math.prod(page.chunks):
                raise InvalidArgument(f"The {field} is a broken TIFF file: a JPEG strip larger than its place.", field)
    if left < 0:
        raise InvalidArgument(
            f"The {field} is a TIFF file whose strips or tiles share their bytes: {size - left:,} bytes of them in a "
            f"file of {size:,}; save it again.",
            field,
        )
