"""Files that are already as `images.write_tiff` would write their pixels: they need not be written again."""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from cellsparse_common.imaging.file_content import open_content
from cellsparse_common.imaging.images import encode_tiff

_OFFSETS, _COUNTS = 273, 279
_OF_LENGTH = frozenset({257, _OFFSETS, _COUNTS})
"""Tags that differ between an image and its first rows: ImageLength, StripOffsets, StripByteCounts."""


def is_canonical(data: bytes, array: npt.NDArray[np.generic]) -> bool:
    """Tell whether a file of a 2D image is as we write it: the same layout, encoder and tags, and nothing besides.

    The first strip is compressed and compared. The others were decoded to `array` by the caller.

    Args:
        data: The file.
        array: Its pixels, axes YX or YXC, decoded and unchanged.
    """
    try:
        with tifffile.TiffFile(open_content(data)) as file:
            page: Any = file.pages[0]
            if page.is_tiled or len(file.pages) != 1 or page.rowsperstrip < 1:
                return False
            rows = min(page.rowsperstrip + 1, len(array))  # one more, or every strip would be as long as ours
            sample = encode_tiff(np.ascontiguousarray(array[:rows]))
            with tifffile.TiffFile(BytesIO(sample)) as own:
                return _same(data, page, sample, own.pages[0], len(array))
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError):
        return False


def _same(data: bytes, page: Any, sample: bytes, own: Any, length: int) -> bool:
    if [tag.code for tag in page.tags] != [tag.code for tag in own.tags] or page.imagelength != length:
        return False
    if any(
        tag.code not in _OF_LENGTH and (tag.value, tag.dtype) != (own.tags[tag.code].value, own.tags[tag.code].dtype)
        for tag in page.tags
    ):
        return False
    offsets, counts = page.dataoffsets, page.databytecounts
    ends = [offset + count for offset, count in zip(offsets, counts, strict=True)]
    if any(not 0 <= begin - end <= 1 for begin, end in zip(offsets[1:], ends, strict=False)):
        return False
    first = sample[own.dataoffsets[0] : own.dataoffsets[0] + own.databytecounts[0]]
    return 0 <= len(data) - ends[-1] <= 1 and data[offsets[0] : ends[0]] == first
