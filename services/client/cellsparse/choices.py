"""Parts of image files: an image of several (`--series`), time points (`--time`), a plane (`--z`); OME-Zarr folders.

The parts are read on this machine, so that a long series is not uploaded for each of its time points.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellsparse.errors import InvalidArgument
from cellsparse.items import FILES, Content, Item
from cellsparse.sources import is_folder, read_all
from cellsparse.vendor import choose_scene, count_times, is_vendor, open_vendor, read_image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cellsparse_common.imaging.images import Image

JPEG_WARNING = "is a JPEG: its compression has changed the pixels for good; use the original image if there is one"
_TIFF = (".tif", ".tiff")
_TIMES = re.compile(r"(\d{1,9})|(\d{0,9}):(\d{0,9})")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is wanted of each image file."""

    series: int | None = None
    """Which image of a file that holds several, from 0; None: the only one."""
    first: int | None = None
    """First time point, from 0; None: the files are no time series."""
    end: int | None = None
    """The time point after the last; None: up to the end."""
    single: bool = False
    """Whether one time point is wanted rather than a range."""
    z: int | None = None
    """Which plane of a stack, from 0; None: all of them."""

    @property
    def everything(self) -> bool:
        """Whether files are taken as they are."""
        return self.series is None and self.first is None and self.z is None


def parse_choice(series: int | None, time: str, z: int | None = None) -> Choice:
    """Return what `--series`, `--time` and `--z` mean.

    Args:
        series: From 0.
        time: "3", "0:10" (0 to 9), "5:" or ":5"; empty if not given.
        z: From 0.

    Raises:
        InvalidArgument: The time is none of these.
    """
    if not time:
        return Choice(series=series, z=z)
    found = _TIMES.fullmatch(time)
    if not found:
        raise InvalidArgument(f"--time is {time!r}; allowed: a time point from 0, such as 3, or a range, such as 0:10.")
    one, first, end = found.groups()
    if one:
        return Choice(series=series, first=int(one), end=int(one) + 1, single=True, z=z)
    begin, stop = int(first or 0), int(end) if end else None
    if stop is not None and stop <= begin:
        raise InvalidArgument(f"--time is {time!r}, which is no time point; the first number must be the smaller one.")
    return Choice(series=series, first=begin, end=stop, z=z)


def chosen_parts(path: Path, choice: Choice, max_pixels: int, axes: str = "") -> Iterator[tuple[str, "Image"]]:
    """Yield the chosen parts of an image file with what their names end with ("" or "-t003").

    Args:
        path: A TIFF file, an OME-Zarr as a folder or zip file, or a microscope's own file.
        choice: What is wanted.
        max_pixels: Most pixels of a part.
        axes: Axes of a part, where its file does not name them.

    Raises:
        InvalidArgument: The file cannot be read, or has no such part.
    """
    from cellsparse_common.imaging.images import decode_image, read_ome_zarr

    field = f"image {path}"
    if is_vendor(path):
        yield from _vendor_parts(path, choice, max_pixels, axes)
        return
    data = b"" if is_folder(path) else read_all(path)
    for time in _times(path, data, choice, field):
        if is_folder(path):
            image = read_ome_zarr(
                path, max_pixels=max_pixels, field=field, axes=axes, series=choice.series, time=time, z=choice.z
            )
        else:
            image = decode_image(
                data,
                max_pixels=max_pixels,
                field=field,
                stacks=True,
                axes=axes,
                series=choice.series,
                time=time,
                z=choice.z,
            )
        yield _ending(time, choice), image


def _vendor_parts(path: Path, choice: Choice, max_pixels: int, axes: str) -> Iterator[tuple[str, "Image"]]:
    from cellsparse_common.imaging.images import take_plane

    reader = open_vendor(path)
    choose_scene(reader, choice.series, path)
    times: Iterable[int | None] = (
        [None] if choice.first is None else _wanted_times(choice, count_times(reader), f"image {path}")
    )
    for time in times:
        image = read_image(reader, path, max_pixels, axes=axes, time=time)
        yield _ending(time, choice), take_plane(image, choice.z, f"image {path}")


def _ending(time: int | None, choice: Choice) -> str:
    return "" if time is None or choice.single else f"-t{time:03d}"


def is_zarr(path: Path) -> bool:
    """Whether a path is called like an OME-Zarr, as a folder or zipped."""
    return path.name.lower().endswith((".zarr", ".zarr.zip", ".ozx"))


def must_be_read(path: Path, choice: Choice) -> bool:
    """Whether a part of an image is sent rather than its file."""
    return not choice.everything or (is_zarr(path) and is_folder(path)) or is_vendor(path)


WHOLE = Choice()
"""Files as they are."""


def is_read_here(content: object) -> bool:
    """Whether the server cannot read a file as it lies here: a microscope's own, or a folder."""
    return isinstance(content, str | Path) and must_be_read(Path(content), WHOLE)


def read_here(item: Item, limit: Callable[[], int]) -> Item:
    """Return an item whose image, where the server could not read it as it lies here, is an array.

    Args:
        item: Any item.
        limit: Returns the most pixels of an image.

    Raises:
        FailedPrecondition: The extra that reads microscopes' files is not installed.
        InvalidArgument: A file cannot be read.
        ResourceExhausted: The image is too large.
    """
    if is_read_here(item.label):
        item = replace(item, label=_zarr_labels(Path(str(item.label)), limit()))
    if not is_read_here(item.image):
        return item
    (read,) = chosen_items([item], WHOLE, limit)
    return read


def read_file_here(path: Path, max_pixels: int, axes: str = "", choice: Choice = WHOLE) -> bytes:
    """Return one part of an image file as a TIFF file (see `chosen_parts`).

    Raises:
        CellsparseError: It cannot be read here, or has no such part.
    """
    ((_, part),) = chosen_parts(path, choice, max_pixels, axes)
    return part_file(part)


def part_file(part: "Image") -> bytes:
    """Return a part as a TIFF file that names its axes and, unless OME lacks its type, its channels."""
    from cellsparse_common.imaging.images import encode_tiff
    from cellsparse_common.imaging.ome_tiff import encode_ome_image, has_type

    stack = "Z" in part.axes
    if has_type(part.array.dtype):
        return encode_ome_image(part.array, stack=stack, channels=part.channels, spacing=part.spacing, name="image.tif")
    return encode_tiff(part.array, stack=stack, spacing=part.spacing if stack else (), colour=False)


def chosen_items(items: Iterable[Item], choice: Choice, limit: Callable[[], int]) -> Iterator[Item]:
    """Yield an item for each chosen part of each item's image, with the labels of the same time point.

    Args:
        items: Image and label are paths or, of labels, contents of files.
        choice: What is wanted.
        limit: Returns the most pixels of a part; asked only where files are read here.

    Raises:
        InvalidArgument: A file cannot be read or has no such part, or several time points share one label image.
    """
    for item in items:
        image = Path(str(item.image))
        label = item.label
        if is_read_here(label):
            item = replace(item, label=_zarr_labels(Path(str(label)), limit()))
        if not must_be_read(image, choice):
            yield item
            continue
        for number, (ending, part) in enumerate(chosen_parts(image, choice, limit(), item.axes)):
            time = None if choice.first is None else choice.first + number
            yield replace(
                item,
                name=f"{item.name[: 200 - len(ending)]}{ending}",
                image=part.array,
                axes=part.axes,
                spacing=item.spacing or part.spacing,
                channels=item.channels or part.channels,
                label=_plane_of(_label_at(item.label, time, limit(), single=choice.single), choice.z, limit()),
            )


def _zarr_labels(path: Path, max_pixels: int) -> Content:
    from cellsparse_common.imaging.images import read_ome_zarr

    return read_ome_zarr(path, max_pixels=max_pixels, field=f"label file {path}", labels=True).array


def _label_at(label: Content, time: int | None, max_pixels: int, *, single: bool) -> Content:
    """Return the labels of a time point, or the file where it holds no others."""
    path = Path(label) if isinstance(label, str | Path) else Path("the label file")
    if time is not None and path.suffix.lower() in _TIFF:
        from cellsparse_common.imaging import tiff

        if tiff.count_times(read_all(path), f"label file {path}") > 1:
            return _tiff_labels(path, max_pixels, time)
    if time is not None and not single:
        raise InvalidArgument(
            f"{path} holds labels of one time point, but --time asks for a range; give one time point, or a TIFF label "
            "file with a T axis like the image's."
        )
    return label


def _plane_of(label: Content, z: int | None, max_pixels: int) -> Content:
    """Return the labels of a plane of a stack; those of a 2D image as they are."""
    if z is None:
        return label
    if isinstance(label, str | Path) and Path(label).suffix.lower() in _TIFF:
        array = _tiff_labels(Path(label), max_pixels)
        label = array if array.ndim == 3 else label
    if isinstance(label, FILES) or label.ndim != 3:
        return label
    if z >= len(label):
        raise InvalidArgument(f"The labels have {len(label)} planes, so that z {z} does not exist.")
    plane: npt.NDArray[np.generic] = label[z]
    return plane


def _tiff_labels(path: Path, max_pixels: int, time: int | None = None) -> "npt.NDArray[np.generic]":
    from cellsparse_common.imaging.images import decode_image
    from cellsparse_common.imaging.lossy import refuse_lossy

    data, field = read_all(path), f"label file {path}"
    refuse_lossy(data, field)
    return decode_image(data, max_pixels=max_pixels, field=field, labels=True, stacks=True, time=time).array


def _times(path: Path, data: bytes, choice: Choice, field: str) -> Iterable[int | None]:
    if choice.everything or choice.first is None:
        return [None]
    from cellsparse_common.imaging import ome_zarr, tiff

    if is_folder(path):
        count = ome_zarr.count_times(ome_zarr.folder_reader(path), field, choice.series)
    elif data[:4] in tiff.SIGNATURES:
        count = tiff.count_times(data, field, choice.series)
    else:
        raise InvalidArgument(f"The {field} is no TIFF file and no OME-Zarr folder, of which --time chooses parts.")
    return _wanted_times(choice, count, field)


def _wanted_times(choice: Choice, count: int, field: str) -> range:
    """Return the chosen ones of so many time points."""
    first = choice.first or 0
    if first >= count:
        raise InvalidArgument(f"The {field} has {count} time point(s), so that time {first} does not exist.")
    return range(first, min(choice.end or count, count))
