"""Parts of image files: one of several images (`--series`), some of several time points (`--time`).

The parts are read on this machine, so that a long series is not uploaded for each of its time points.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellsparse.errors import InvalidArgument
from cellsparse.items import Content, Item

if TYPE_CHECKING:
    from cellsparse_common.imaging.images import Image

JPEG_WARNING = "is a JPEG: its compression has changed the pixels for good; use the original image if there is one"
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

    @property
    def everything(self) -> bool:
        """Whether files are taken as they are."""
        return self.series is None and self.first is None


def parse_choice(series: int | None, time: str) -> Choice:
    """Return what `--series` and `--time` mean.

    Args:
        series: From 0.
        time: "3", "0:10" (0 to 9), "5:" or ":5"; empty if not given.

    Raises:
        InvalidArgument: The time is none of these.
    """
    if not time:
        return Choice(series=series)
    found = _TIMES.fullmatch(time)
    if not found:
        raise InvalidArgument(f"--time is {time!r}; allowed: a time point from 0, such as 3, or a range, such as 0:10.")
    one, first, end = found.groups()
    if one:
        return Choice(series=series, first=int(one), end=int(one) + 1, single=True)
    begin, stop = int(first or 0), int(end) if end else None
    if stop is not None and stop <= begin:
        raise InvalidArgument(f"--time is {time!r}, which is no time point; the first number must be the smaller one.")
    return Choice(series=series, first=begin, end=stop)


def chosen_parts(path: Path, choice: Choice, max_pixels: int, axes: str = "") -> Iterator[tuple[str, "Image"]]:
    """Yield the chosen parts of an image file with what their names end with ("" or "-t003").

    Args:
        path: A TIFF file.
        choice: What is wanted.
        max_pixels: Most pixels of a part.
        axes: Axes of a part, where its file does not name them.

    Raises:
        InvalidArgument: The file cannot be read, or has no such part.
    """
    from cellsparse_common.imaging.images import decode_image

    data = _read(path)
    field = f"image {path}"
    for time in _times(data, choice, field):
        image = decode_image(
            data, max_pixels=max_pixels, field=field, stacks=True, axes=axes, series=choice.series, time=time
        )
        yield ("" if time is None or choice.single else f"-t{time:03d}"), image


def part_file(part: "Image") -> bytes:
    """Return a part as a TIFF file that names its axes."""
    from cellsparse_common.imaging.images import encode_tiff

    stack = "Z" in part.axes
    return encode_tiff(part.array, stack=stack, spacing=part.spacing if stack else ())


def chosen_items(items: Iterable[Item], choice: Choice, max_pixels: int) -> Iterator[Item]:
    """Yield an item for each chosen part of each item's image, with the labels of the same time point.

    Raises:
        InvalidArgument: A file cannot be read or has no such part, or several time points share one label image.
    """
    for item in items:
        image, label = Path(str(item.image)), Path(str(item.label))
        for number, (ending, part) in enumerate(chosen_parts(image, choice, max_pixels, item.axes)):
            time = None if choice.first is None else choice.first + number
            yield replace(
                item,
                name=f"{item.name[: 200 - len(ending)]}{ending}",
                image=part.array,
                axes=part.axes,
                spacing=item.spacing or part.spacing,
                label=_label_at(label, time, max_pixels, single=choice.single),
            )


def _label_at(path: Path, time: int | None, max_pixels: int, *, single: bool) -> Content:
    """Return the labels of a time point, or the file where it holds no others."""
    if time is None or path.suffix.lower() not in (".tif", ".tiff"):
        times = 1
    else:
        from cellsparse_common.imaging import tiff
        from cellsparse_common.imaging.images import decode_image

        data = _read(path)
        times = tiff.count_times(data, f"label file {path}")
        if times > 1:
            return decode_image(
                data, max_pixels=max_pixels, field=f"label file {path}", labels=True, stacks=True, time=time
            ).array
    if time is not None and not single:
        raise InvalidArgument(
            f"{path} holds labels of one time point, but --time asks for a range; give one time point, or a TIFF label "
            "file with a T axis like the image's."
        )
    return path


def _times(data: bytes, choice: Choice, field: str) -> Iterable[int | None]:
    if choice.first is None:
        return [None]
    from cellsparse_common.imaging import tiff

    if data[:4] not in tiff.SIGNATURES:
        raise InvalidArgument(f"The {field} is no TIFF file; --series and --time choose parts of TIFF files.")
    count = tiff.count_times(data, field, choice.series)
    if choice.first >= count:
        raise InvalidArgument(f"The {field} has {count} time point(s), so that time {choice.first} does not exist.")
    return range(choice.first, min(choice.end or count, count))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}.") from error
