"""Microscopes' own files (CZI, LIF, ND2), read on this machine by bioio: the extra `cellsparse[vendor]`.

bioio is loaded where such a file is at hand.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellsparse.errors import CellsparseError, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from cellsparse_common.imaging.images import Image

READERS = {".czi": "bioio_czi", ".lif": "bioio_lif", ".nd2": "bioio_nd2"}
"""The package of bioio that reads files of a kind, by their ending."""
_SHOWN = 8


def is_vendor(path: Path) -> bool:
    """Whether a path is called like a microscope's own file."""
    return path.suffix.lower() in READERS


def open_vendor(path: Path) -> Any:
    """Return a reader of bioio for a file.

    Raises:
        FailedPrecondition: The extra is not installed.
        InvalidArgument: The file cannot be read.
    """
    name = READERS[path.suffix.lower()]
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        raise FailedPrecondition(
            f"{path} is read by bioio, which is not installed; `pip install 'cellsparse[vendor]'` installs it."
        ) from error
    try:
        return package.Reader(path)
    except Exception as error:
        raise _broken(path, error) from error


def choose_scene(reader: Any, number: int | None, path: Path) -> None:
    """Let a reader read one of the images of its file.

    Args:
        reader: A reader of bioio.
        number: Which, from 0; None if the file must hold one only.
        path: Its file, for messages.

    Raises:
        InvalidArgument: There is no such image, or there are several and none is chosen.
    """
    scenes = [str(scene) for scene in reader.scenes]
    if number is None and len(scenes) == 1:
        number = 0
    if number is None or not 0 <= number < len(scenes):
        listed = ", ".join(f"{at}: {scene[:40]}" for at, scene in enumerate(scenes[:_SHOWN]))
        listed += ", ..." if len(scenes) > _SHOWN else ""
        raise InvalidArgument(f"{path} holds {len(scenes)} images ({listed}); choose one of them with --series.")
    reader.set_scene(number)


def count_times(reader: Any) -> int:
    """Return the number of time points of a reader's image."""
    return int(dict(zip(reader.dims.order, reader.dims.shape, strict=True)).get("T", 1))


def read_image(reader: Any, path: Path, max_pixels: int, *, axes: str = "", time: int | None = None) -> "Image":
    """Return the image that a reader reads.

    Args:
        reader: A reader of bioio, whose image is chosen.
        path: Its file, for messages.
        max_pixels: Most pixels of the image.
        axes: What its axes longer than 1 are, where the caller knows better.
        time: Which time point, from 0; None: the file must hold one only.

    Raises:
        InvalidArgument: It is a time series and no point is chosen, or no image of 1 to 16 channels.
        ResourceExhausted: It is too large.
    """
    import numpy as np

    from cellsparse_common.imaging.images import read_image as read
    from cellsparse_common.imaging.layout import Header

    sizes = dict(zip(reader.dims.order, reader.dims.shape, strict=True))
    if time is None and count_times(reader) > 1:
        raise InvalidArgument(f"{path} is a time series of {count_times(reader)} points; choose some with --time.")
    wanted = "".join(axis for axis in reader.dims.order if axis in "YX" or (axis != "T" and sizes[axis] > 1))
    channels = [str(name) for name in reader.channel_names or ()] if "C" in wanted else []
    header = Header(
        shape=tuple(int(sizes[axis]) for axis in wanted),
        axes=wanted,
        dtype=np.dtype(reader.dtype),
        spacing=_spacing(reader.physical_pixel_sizes),
        channels=tuple(channels) if len(channels) == sizes.get("C") else (),
    )

    def pixels() -> Any:
        return np.asarray(reader.get_image_data(wanted, **({"T": time or 0} if "T" in sizes else {})))

    try:
        return read(header, pixels, max_pixels=max_pixels, field=f"image {path}", axes=axes)
    except CellsparseError:
        raise
    except Exception as error:
        raise _broken(path, error) from error


def _spacing(sizes: Any) -> tuple[float, ...]:
    """Return micrometres per pixel along z, y and x; empty if not known."""
    across, down = (float(size or 0) for size in (sizes.X, sizes.Y))
    if not (across > 0 and down > 0):
        return ()
    return (abs(float(sizes.Z or 0)) or across, down, across)


def _broken(path: Path, error: Exception) -> InvalidArgument:
    reason = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
    return InvalidArgument(f"{path} cannot be read as a {path.suffix[1:].upper()} file: {reason}.")
