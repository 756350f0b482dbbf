"""Microscopy images: safe reading of uploaded TIFF and PNG files, deterministic writing, grey values for training.

Sizes are checked from the header before a pixel is decoded. An image here has axes YX or YXC with 2 to 16 channels; a
stack ZYX or ZYXC. Channels are last everywhere outside of networks: at rest, in memory and in files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile

from cellsparse_common.channels import ALPHA, RGB, clean_names
from cellsparse_common.config.limits import DEFAULT_MAX_DECODED_BYTES, MAX_BYTES_IN_MEMORY
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import decoder_process, decoding_budget, jpeg, ome_zarr, png, tiff
from cellsparse_common.imaging.disk_array import DISK_BYTES, release
from cellsparse_common.imaging.layout import (
    STACK_HINT,
    VALUES_PER_PIXEL,
    Header,
    check_bytes,
    check_dtype,
    check_size,
    check_voxels,
    name_axes,
    refuse_unclear,
)
from cellsparse_common.imaging.tiff_directories import check_directories
from cellsparse_common.imaging.types import GrayImage
from cellsparse_common.imaging.zarr_chunks import Get

_TILE = 512
"""Side in pixels of the tiles of large images."""
_BAND_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class Image:
    """One 2D plane, or a stack of at least 2 planes."""

    array: npt.NDArray[np.generic]
    """Pixels in the order of `axes`: any integer type or a floating point type."""
    axes: str
    """YX or ZYX, or YXC or ZYXC with 2 to 16 channels."""
    spacing: tuple[float, ...] = ()
    """Micrometres per pixel along the axes other than C; empty if the file does not state them."""
    channels: tuple[str, ...] = ()
    """Names of the channels (see `channels.clean_names`); empty for one channel without a name."""


def decode_image(
    data: bytes,
    *,
    max_pixels: int,
    max_bytes: int = DEFAULT_MAX_DECODED_BYTES,
    field: str = "image",
    labels: bool = False,
    stacks: bool = False,
    axes: str = "",
    series: int | None = None,
    time: int | None = None,
    z: int | None = None,
    values_per_pixel: int = VALUES_PER_PIXEL,
    trusted: bool = False,
) -> Image:
    """Decode an uploaded image.

    Args:
        data: A PNG or JPEG file, a zip of an OME-Zarr image, or a TIFF file of any flavour: not compressed, with a
            lossless compression (LZW, deflate, PackBits, LZMA, Zstd), or with JPEG, which whole-slide scanners write.
        max_pixels: Most pixels (height x width, of a stack x planes) allowed.
        max_bytes: Most bytes of the decoded pixels, all channels together.
        field: Name of the request's field, for messages.
        labels: Whether the pixels are label numbers: a palette PNG then gives its indices rather than its colours, and
            a file of three axes the planes of a stack, where one is allowed, rather than channels.
        stacks: Whether a stack of planes is allowed.
        axes: What the file's axes are, such as "ZCYX", where the caller knows (see `layout.name_axes`).
        series: Which image of a TIFF file or an OME-Zarr that holds several, from 0; None: the only one.
        time: Which time point of a TIFF file or an OME-Zarr, from 0; None: the file is no time series.
        z: Which plane of a stack, from 0; None: all. Of an OME-Zarr only its chunks are read; of any other file the
            whole stack has to keep the limits.
        values_per_pixel: Most values, channels included, for each pixel allowed.
        trusted: Whether a service of ours wrote the file: then it is decoded in this process, whatever its codec (see
            `decoder_process`).

    Returns:
        The image with the file's own type, except that booleans become uint8 0 and 1. One channel is squeezed away,
        several are the last axis; transparency is a channel like any other.

    Raises:
        InvalidArgument: Not one 2D plane (or stack) of 1 to 16 channels, not readable, values that are not finite
            numbers, or the image has no such part.
        ResourceExhausted: More than `max_pixels` or `max_bytes`.
        Busy: All calls of this server together have decoded too much for the moment (see `decoding_budget`).

    A process that calls `decoder_process.decode_apart` has files with codecs decoded in a process of their own.
    """
    stacks = stacks or z is not None
    in_memory = data.startswith((png.SIGNATURE, jpeg.SIGNATURE))
    most = min(max_bytes, MAX_BYTES_IN_MEMORY) if in_memory else max_bytes
    how: dict[str, Any] = {"field": field, "labels": labels, "stacks": stacks, "axes": axes}
    how |= {"series": series, "time": time, "z": z}
    with decoding_budget.BUDGET.claim() as claim:

        def check(header: Header) -> None:
            named = _names(header, field, axes, labels=labels, stacks=stacks)
            _check(header, named, max_pixels, most, field, values_per_pixel)
            claim.take(header.nbytes, field)

        decoder = None if trusted else decoder_process.decoder()
        if decoder is not None and _needs_codecs(data, field, labels=labels):
            about, array = decoder.decode(data, field, check, how)
            found = Image(array=array, axes=about.axes, spacing=about.spacing, channels=about.channels)
        else:
            found = decode_here(data, check, **how)
        claim.keep_with(found.array)
    return found


def _needs_codecs(data: bytes, field: str, *, labels: bool) -> bool:
    """Tell whether native code of some size reads a file: a codec of a TIFF, JPEG's, or one of a Zarr's chunks."""
    if data.startswith(tiff.SIGNATURES):
        return not check_directories(data, field) <= {tiff.UNCOMPRESSED}
    return (data.startswith(jpeg.SIGNATURE) and not labels) or ome_zarr.is_zipped(data)


def decode_here(
    data: bytes,
    check: Callable[[Header], None],
    *,
    field: str,
    labels: bool,
    stacks: bool,
    axes: str,
    series: int | None,
    time: int | None,
    z: int | None,
) -> Image:
    """Decode an image in this process, with the arguments and errors of `decode_image`.

    `check` is called with the header before a pixel is decoded, and raises to refuse it.
    """
    if not data.startswith(tiff.SIGNATURES) and not ome_zarr.is_zipped(data):
        _refuse_parts(field, series=series, time=time)
    if data.startswith(jpeg.SIGNATURE) and not labels:
        header = jpeg.read_header(data, field)
        check(header)
        array = jpeg.decode(data, field)
    elif ome_zarr.is_zipped(data):
        inside = z if not axes else None  # only that plane's chunks are read
        array, header = ome_zarr.decode_zip(data, field, check, labels=labels, series=series, time=time, z=inside)
        z = z if inside is None else None
    elif _is_png(data, field, labels=labels):
        header = png.read_header(data, field)
        check(header)
        array = png.decode(data, field, indices=labels)
        colours = (*RGB, ALPHA)[: array.shape[-1]] if array.ndim == 3 and array.shape[-1] > 2 else ()
        header = Header(shape=array.shape, axes="YXS"[: array.ndim], dtype=array.dtype, channels=colours)
    else:
        array, header = tiff.decode(data, field, check, series=series, time=time)
    found = _normalised(array, _names(header, field, axes, labels=labels, stacks=stacks), header, field)
    del array
    return take_plane(found, z, field)


def take_plane(image: Image, z: int | None, field: str) -> Image:
    """Return one plane of a stack as a 2D image; None: the image as it is.

    Args:
        image: Any image; one in 2D has the plane 0.
        z: Which plane, from 0.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: There is no such plane.
    """
    stack = image.axes.startswith("Z")
    planes = len(image.array) if stack else 1
    if z is None or (z == 0 and not stack):
        return image
    if not 0 <= z < planes:
        raise InvalidArgument(f"The {field} has {planes} plane(s), so that z {z} does not exist.", "z")
    plane = np.ascontiguousarray(image.array[z])
    return Image(array=plane, axes=image.axes[1:], spacing=image.spacing[1:], channels=image.channels)


def _refuse_parts(field: str, *, series: int | None, time: int | None) -> None:
    """Refuse a choice of anything but the first part of a file that holds one image of one time point."""
    for name, number, what in (("series", series, "image"), ("time", time, "time point(s)")):
        if number:
            raise InvalidArgument(f"The {field} holds 1 {what}, so that {name} {number} does not exist.", name)


def read_ome_zarr(
    source: Path | Get,
    *,
    max_pixels: int,
    max_bytes: int = DEFAULT_MAX_DECODED_BYTES,
    field: str = "image",
    labels: bool = False,
    axes: str = "",
    series: int | None = None,
    time: int | None = None,
    z: int | None = None,
) -> Image:
    """Read an OME-Zarr where it lies, chunk by chunk (see `decode_image`).

    Args:
        source: A folder on this machine, or what returns the content of a key.
        max_pixels: Most pixels (height x width, of a stack x planes) allowed.
        max_bytes: Most bytes of the decoded pixels, all channels together.
        field: What messages call the image.
        labels: Whether the pixels are label numbers.
        axes: What the axes are, where the caller knows.
        series: Which image of a group that holds several, from 0; None: the only one.
        time: Which time point, from 0; only its chunks are read.
        z: Which plane of a stack, from 0; unless axes are given, only its chunks are read.
    """
    get = ome_zarr.folder_reader(source) if isinstance(source, Path) else source
    inside = z if not axes else None
    with decoding_budget.BUDGET.claim() as claim:

        def check(header: Header) -> None:
            named = _names(header, field, axes, labels=labels, stacks=True)
            _check(header, named, max_pixels, max_bytes, field, VALUES_PER_PIXEL)
            claim.take(header.nbytes, field)

        array, header = ome_zarr.decode(get, field, check, labels=labels, series=series, time=time, z=inside)
        named = _names(header, field, axes, labels=labels, stacks=True)
        found = _normalised(array, named, header, field)
        del array
        claim.keep_with(found.array)
    return take_plane(found, z if inside is None else None, field)


def read_image(
    header: Header,
    read: Callable[[], npt.NDArray[np.generic]],
    *,
    max_pixels: int,
    max_bytes: int = DEFAULT_MAX_DECODED_BYTES,
    field: str = "image",
    axes: str = "",
) -> Image:
    """Return an image that something else reads, checked like a file's (see `decode_image`).

    Args:
        header: What is read.
        read: Returns the pixels in the order of the header's axes; called once the header is checked.
        max_pixels: Most pixels (height x width, of a stack x planes) allowed.
        max_bytes: Most bytes of the decoded pixels, all channels together.
        field: What messages call the image.
        axes: What the axes are, where the caller knows.
    """
    named = _names(header, field, axes, labels=False, stacks=True)
    _check(header, named, max_pixels, max_bytes, field, VALUES_PER_PIXEL)
    return _normalised(read(), named, header, field)


def _names(header: Header, field: str, axes: str, *, labels: bool, stacks: bool) -> str:
    given = axes or ("ZYX" if labels and stacks and len(header.shape) == 3 else "")
    if not given and not labels:
        refuse_unclear(header, field, stacks=stacks)
    try:
        return name_axes(header, field, given=given, stacks=stacks)
    except InvalidArgument as error:
        if labels and not stacks and len(header.shape) == 3:  # their image was taken for a plane of channels
            raise InvalidArgument(f"{error.message} {STACK_HINT}", field) from None
        raise


def _check(header: Header, named: str, max_pixels: int, max_bytes: int, field: str, values_per_pixel: int) -> None:
    check_size(header, max_pixels, field, values_per_pixel=values_per_pixel)
    check_dtype(header, field)
    check_voxels(header, named, max_pixels, field)
    check_bytes(header, max_bytes, field)


def encode_tiff(
    array: npt.NDArray[np.generic], *, stack: bool = False, spacing: Sequence[float] = (), colour: bool = True
) -> bytes:
    """Return a zlib-compressed TIFF file (see `write_tiff`)."""
    buffer = BytesIO()
    write_tiff(buffer, array, stack=stack, spacing=spacing, colour=colour)
    return buffer.getvalue()


def write_tiff(
    target: BinaryIO,
    array: npt.NDArray[np.generic],
    *,
    stack: bool = False,
    spacing: Sequence[float] = (),
    colour: bool = True,
) -> None:
    """Write a zlib-compressed TIFF file; the same array always gives the same bytes.

    A stack is written as ImageJ writes it (which also reads the types it does not write itself): planes in order, each
    with its channels, and the spacing.

    Args:
        target: An empty file.
        array: Axes YX or YXC, any integer type, float32 or float64; of a stack ZYX or ZYXC with at least 2 planes.
        stack: Whether it is a stack.
        spacing: Micrometres per pixel along z, y and x of a stack; empty if not known.
        colour: Whether the 3 or 4 channels of an image are red, green, blue and transparency.
    """
    planar = array.ndim - stack
    if planar == 3 and array.shape[-1] == 1:
        array, planar = array[..., 0], 2
    options: dict[str, Any] = {}
    if stack:
        array = array if planar == 2 else np.moveaxis(array, 3, 1)
        options = {"description": _imagej_description(array.shape, spacing), "photometric": "minisblack"}
        if spacing:
            options |= {"resolution": (1 / spacing[2], 1 / spacing[1]), "resolutionunit": 1}
    elif planar == 3:
        options = {
            "photometric": "rgb" if colour and array.shape[2] in (3, 4) else "minisblack",
            "planarconfig": "contig",
        }
    else:
        options = {"photometric": "minisblack", "planarconfig": None}
    data: Any = np.ascontiguousarray(array)
    if not stack and array.nbytes >= DISK_BYTES:  # one tile at a time, and readers need not read all of them
        options |= {"shape": array.shape, "dtype": array.dtype, "tile": (_TILE, _TILE)}
        data = _tiles(array)
    tifffile.imwrite(
        target,
        data,
        compression="zlib",
        compressionargs={"level": 6},
        metadata=None,
        software=False,
        datetime=False,
        **options,
    )


def _tiles(array: npt.NDArray[np.generic]) -> Iterator[npt.NDArray[np.generic]]:
    """Yield an image's tiles row by row, those at its far borders filled up with zeros."""
    for top in range(0, array.shape[0], _TILE):
        for left in range(0, array.shape[1], _TILE):
            part = array[top : top + _TILE, left : left + _TILE]
            missing = [(0, _TILE - part.shape[0]), (0, _TILE - part.shape[1]), *[(0, 0)] * (array.ndim - 2)]
            yield np.pad(part, missing)
        release(array)


def _imagej_description(shape: tuple[int, ...], spacing: Sequence[float]) -> str:
    """Return what ImageJ keeps about a stack of axes ZYX or ZCYX."""
    channels = shape[1] if len(shape) == 4 else 1
    lines = ["ImageJ=1.11a", f"images={shape[0] * channels}"]
    lines += [f"channels={channels}"] if channels > 1 else []
    lines += [f"slices={shape[0]}"]
    lines += ["hyperstack=true", "mode=grayscale"] if channels > 1 else []
    lines += ["unit=um", f"spacing={spacing[0]!r}"] if spacing else []
    return "\n".join([*lines, "loop=false", ""])


def to_gray(array: npt.NDArray[np.generic], channel: int | None = None, *, stack: bool = False) -> GrayImage:
    """Return one grey plane, or stack of planes.

    Args:
        array: Axes YX or YXC, of a stack ZYX or ZYXC.
        channel: Which channel, from 0; None means the mean over channels.
        stack: Whether it is a stack.

    Returns:
        float32, axes YX or ZYX.

    Raises:
        InvalidArgument: There is no such channel.
    """
    single = array.ndim == 2 + stack
    channels = 1 if single else array.shape[-1]
    if channel is not None and not 0 <= channel < channels:
        raise InvalidArgument(f"The image has {channels} channel(s); channel {channel} does not exist.", "channel")
    if single:
        return array.astype(np.float32)
    if channel is not None:
        return array[..., channel].astype(np.float32)
    return np.asarray(array.mean(axis=-1, dtype=np.float64), dtype=np.float32)


def brightness(image: npt.NDArray[np.float32], axes: int) -> GrayImage:
    """Return how bright each pixel is: the image itself or, of several channels, their mean.

    Args:
        image: Axes YX or ZYX, or YXC or ZYXC.
        axes: Number of axes without channels, 2 or 3.
    """
    return image if image.ndim == axes else np.asarray(image.mean(axis=-1), np.float32)


def normalize(gray: GrayImage, lower: float, upper: float) -> GrayImage:
    """Scale grey values so that two percentiles become 0 and 1, and clip to that range.

    Args:
        gray: Axes YX or ZYX, finite.
        lower: Percentile that becomes 0, from 0 to 100.
        upper: Percentile that becomes 1, from 0 to 100, above `lower`.

    Returns:
        float32 in [0, 1], axes as given; zeros where the two percentiles are equal.
    """
    low, high = (float(value) for value in np.percentile(gray, (lower, upper)))
    return scale_to_unit(gray, low, high)


def scale_to_unit(gray: GrayImage, low: float, high: float) -> GrayImage:
    """Scale grey values so that `low` becomes 0 and `high` 1, and clip to that range.

    Args:
        gray: Axes YX or ZYX, finite.
        low: Becomes 0.
        high: Becomes 1.

    Returns:
        float32 in [0, 1], axes as given; zeros unless `high` is above `low`.
    """
    if not high > low:
        return np.zeros(gray.shape, np.float32)
    normalized = np.empty(gray.shape, np.float32)
    for plane in np.ndindex(gray.shape[:-2]):  # one at a time: a stack need not be in memory twice more
        # In float64: a range as small as the smallest float32 must not overflow the quotient.
        scaled: npt.NDArray[np.float64] = (gray[plane].astype(np.float64) - low) / (high - low)
        normalized[plane] = scaled.clip(0.0, 1.0)
    return normalized


def take_channels(
    array: npt.NDArray[np.generic], channels: Sequence[int], *, stack: bool = False
) -> npt.NDArray[np.float32]:
    """Return several channels of an image.

    Args:
        array: Axes YX or YXC, of a stack ZYX or ZYXC.
        channels: Which, from 0, two or more, in the order wanted.
        stack: Whether it is a stack.

    Returns:
        float32, axes YXC or ZYXC.

    Raises:
        InvalidArgument: There is no such channel.
    """
    there = 1 if array.ndim == 2 + stack else array.shape[-1]
    if missing := [channel for channel in channels if not 0 <= channel < there]:
        raise InvalidArgument(f"The image has {there} channel(s); channel {missing[0]} does not exist.", "channels")
    return array[..., list(channels)].astype(np.float32)


def normalize_channels(image: npt.NDArray[np.float32], lower: float, upper: float) -> npt.NDArray[np.float32]:
    """Scale each channel by its own percentiles (see `normalize`).

    Args:
        image: Axes YXC or ZYXC, finite.
        lower: Percentile that becomes 0, from 0 to 100.
        upper: Percentile that becomes 1, from 0 to 100, above `lower`.

    Returns:
        float32 in [0, 1], axes as given.
    """
    scaled = np.empty(image.shape, np.float32)
    for channel in range(image.shape[-1]):
        scaled[..., channel] = normalize(np.ascontiguousarray(image[..., channel]), lower, upper)
    return scaled


def _is_png(data: bytes, field: str, *, labels: bool) -> bool:
    """Tell PNG (True) from TIFF (False) by the first bytes.

    Raises:
        InvalidArgument: It is neither.
    """
    if data.startswith(png.SIGNATURE):
        return True
    if data[:4] in tiff.SIGNATURES:
        return False
    what = f"starts with {bytes(data[:8])!r}" if data else "is empty"
    kinds = "not a TIFF or PNG file, nor any other that holds labels" if labels else "not a TIFF, PNG or JPEG file"
    raise InvalidArgument(f"The {field} is {kinds}: it {what}.", field)


def _normalised(array: npt.NDArray[np.generic], axes: str, header: Header, field: str) -> Image:
    """Bring the axes into order, channels last, squeeze a single channel, and check the values."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    order = [axis for axis in "ZYXC" if axis in axes]
    array = array.transpose([axes.index(axis) for axis in order])
    if array.nbytes < DISK_BYTES:
        array = np.ascontiguousarray(array)
    if "C" in order and array.shape[-1] == 1:
        array, order = array[..., 0], order[:-1]
    if array.dtype.kind == "f":
        _refuse_not_finite(array, field)
    spacing = header.spacing if "Z" in order else header.spacing[1:]
    names = clean_names(header.channels, array.shape[-1] if "C" in order else 1)
    return Image(array=array, axes="".join(order), spacing=spacing, channels=names)


def _refuse_not_finite(array: npt.NDArray[np.generic], field: str) -> None:
    """Refuse values that are no finite numbers, looking at some rows (or planes) at a time."""
    step = max(1, _BAND_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        bad = ~np.isfinite(array[start : start + step])
        if bad.any():
            first = np.argwhere(bad)[0]
            position = tuple(int(at) + (start if axis == 0 else 0) for axis, at in enumerate(first))
            raise InvalidArgument(
                f"The {field} holds {array[position]} at {position}; allowed: finite numbers only.", field
            )
        release(array)
