"""Arrays to files and back: the only module of the SDK that loads NumPy and tifffile.

Others import it where an array is at hand. Most commands need none, and the two take longer to load than all else.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellsparse.errors import InvalidArgument
from cellsparse_common.imaging.images import Image, decode_image, encode_tiff
from cellsparse_common.imaging.layout import Header, name_axes
from cellsparse_common.imaging.ome_tiff import encode_ome_image, has_type
from cellsparse_common.imaging.types import Labels

if TYPE_CHECKING:
    from cellsparse.datasets import ItemArrays


def image_file(image: npt.NDArray[np.generic], axes: str, field: str) -> bytes:
    """Return an image as a TIFF file that names its axes.

    Args:
        image: Axes as `axes` says; if empty, by the rule for files (see `Item.axes`).
        axes: Axes of the array, such as "ZCYX"; empty if not given.
        field: What messages call the image.

    Raises:
        InvalidArgument: The array is not one 2D plane, or stack of planes, of 1 to 16 channels.
    """
    given = axes or ("ZYXC" if image.ndim == 4 else "")
    header = Header(shape=image.shape, axes="QQYX"[-image.ndim :], dtype=image.dtype)
    named = name_axes(header, field, given=given, stacks=True)
    image = image.transpose([named.index(axis) for axis in "ZYXC" if axis in named])
    if "Z" in named and image.shape[0] > 1:
        return encode_tiff(image, stack=True)
    colour = image.dtype == np.uint8 and named[-1] == "C"
    return encode_tiff(image[0] if "Z" in named else image, colour=colour)


def item_image_file(item: "ItemArrays") -> bytes:
    """Return the image of a dataset's item as an OME-TIFF file, with its channels' names and the size of a pixel.

    Types that OME does not have are written into a plain TIFF file, which has no names.
    """
    stack = item.label.ndim == 3
    if not has_type(item.image.dtype):
        return encode_tiff(item.image, stack=stack, spacing=item.spacing if stack else ())
    return encode_ome_image(
        item.image, stack=stack, channels=item.channels, spacing=item.spacing, name=f"{item.name}.tif"
    )


def label_file(label: npt.NDArray[np.generic], item: str) -> bytes:
    """Return a label image as a TIFF file. Colours, which are no labels, are kept, so that the server refuses them.

    Args:
        label: Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n.
        item: Name of the item, for messages.

    Raises:
        InvalidArgument: A label does not fit into 32 bits.
    """
    label = _writable(label, item)
    if label.ndim == 3 and label.shape[0] == 1:
        label = label[0]
    return encode_tiff(label, stack=label.ndim == 3 and label.shape[-1] not in (3, 4))


def prediction_file(label: Labels, spacing: tuple[float, ...]) -> bytes:
    """Return a predicted label image as a TIFF file: uint16 where its labels fit, as most tools expect.

    Args:
        label: Axes YX or ZYX: 0 background, n > 0 cell n.
        spacing: Micrometres per pixel along each axis; empty if not known. Kept for stacks only.
    """
    stack = label.ndim == 3
    narrow = label.astype(np.uint16) if label.max(initial=0) < 2**16 else label
    return encode_tiff(narrow, stack=stack, spacing=spacing if stack else ())


def read_image(data: bytes, max_pixels: int, *, stack: bool) -> npt.NDArray[np.generic]:
    """Decode an image that the server sent.

    Args:
        data: The TIFF file.
        max_pixels: Most pixels, of a stack voxels, to decode.
        stack: Whether it may be a stack.
    """
    return decode_image(data, max_pixels=max_pixels, stacks=stack).array


def read_labels(data: bytes, max_pixels: int, *, stack: bool) -> tuple[Labels, tuple[float, ...]]:
    """Decode a label image that the server sent.

    Args:
        data: The TIFF file.
        max_pixels: Most pixels, of a stack voxels, to decode.
        stack: Whether it may be a stack.

    Returns:
        The labels, axes YX or ZYX, and micrometres per pixel along each axis, empty if not known.
    """
    image: Image = decode_image(data, max_pixels=max_pixels, field="label", stacks=stack)
    return image.array.astype(np.int32), image.spacing


def _writable(label: npt.NDArray[np.generic], item: str) -> npt.NDArray[np.generic]:
    """Return labels in a type that a TIFF file can hold, without ever changing a value."""
    if label.dtype == bool:
        return label.astype(np.uint8)
    if label.dtype.kind not in "iu" or label.dtype.itemsize < 8:
        return label  # floats, too: the server refuses them with a clear message
    narrow = label.astype(np.int32)
    if not np.array_equal(narrow, label):
        raise InvalidArgument(f"The labels of item {item!r} go beyond 32 bits; renumber the cells from 1.", "label")
    return narrow
