"""Reading JPEG images: header first, then pixels, upright. Labels are never read from them (see `lossy`)."""

from io import BytesIO

import numpy as np
import numpy.typing as npt

from cellsparse_common.channels import RGB
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.jpeg_header import jpeg_frame
from cellsparse_common.imaging.jpeg_orientation import jpeg_orientation, turn_upright, turned_shape
from cellsparse_common.imaging.layout import Header

SIGNATURE = b"\xff\xd8\xff"


def read_header(data: bytes, field: str) -> Header:
    """Return shape, of the upright picture, and type from the first frame header; nothing is decoded.

    Raises:
        InvalidArgument: It is of a kind that is not read.
    """
    try:
        height, width, components = jpeg_frame(data)
    except ValueError as error:
        raise InvalidArgument(f"The {field} is a truncated, broken or unusual JPEG file.", field) from error
    if components not in (1, 3):
        raise InvalidArgument(
            f"The {field} is a JPEG file of {components} components; allowed: grey and RGB. Save it as TIFF or PNG.",
            field,
        )
    dtype = np.dtype(np.uint8)
    height, width = turned_shape(height, width, jpeg_orientation(data))
    if components == 1:
        return Header(shape=(height, width), axes="YX", dtype=dtype)
    return Header(shape=(height, width, 3), axes="YXS", dtype=dtype, channels=RGB)


def decode(data: bytes, field: str) -> npt.NDArray[np.generic]:
    """Return the pixels, axes YX or YXC, upright (see `jpeg_orientation`). Its size must have been checked.

    Raises:
        InvalidArgument: The file is truncated or broken.
    """
    from PIL import JpegImagePlugin

    try:
        with JpegImagePlugin.JpegImageFile(BytesIO(data)) as file:
            pixels = np.asarray(file.convert("L" if file.mode == "L" else "RGB"))
    except Exception as error:
        raise InvalidArgument(f"The {field} is a truncated or broken JPEG file.", field) from error
    return turn_upright(pixels, jpeg_orientation(data))
