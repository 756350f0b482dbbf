"""Reading OME-Zarr images and labels, versions 0.4 and 0.5: the largest level, from a folder, a zip file or a store."""

import math
import zipfile
from collections.abc import Callable
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.layout import Header
from cellsparse_common.imaging.tiff_spacing import unit_micrometres
from cellsparse_common.imaging.zarr_arrays import ZarrArray, attributes, open_array, read_array
from cellsparse_common.imaging.zarr_chunks import Get, ZarrError
from cellsparse_common.imaging.zip_members import MAX_MEMBERS, ZIP_ERRORS, has_too_many

_MOST_CHUNK_BYTES = 2**30
_ROOTS = ("zarr.json", ".zattrs")
_LAYOUT = "bioformats2raw.layout"
"""Key of a group that holds images called 0, 1, ..., as bioformats2raw and NGFF-Converter write it."""
_MOST_SERIES = 1000


def is_zipped(data: bytes) -> bool:
    """Tell whether a file is a zip of a Zarr group."""
    if not data.startswith(b"PK\x03\x04"):
        return False
    try:
        if has_too_many(data):
            return True  # `decode_zip` refuses it
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return any(name.rpartition("/")[2] in _ROOTS for name in archive.namelist()[:1000])
    except ZIP_ERRORS:
        return False


def is_folder(path: Path) -> bool:
    """Tell whether a folder on this machine is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in _ROOTS)


def decode_zip(
    data: bytes,
    field: str,
    check: Callable[[Header], None],
    *,
    labels: bool = False,
    series: int | None = None,
    time: int | None = None,
    z: int | None = None,
) -> tuple[npt.NDArray[np.generic], Header]:
    """Return the pixels of a zip file (see `decode`). The group is at its top or in one folder."""
    if has_too_many(data):
        raise ResourceExhausted(f"The {field} is a zip of more than {MAX_MEMBERS:,} files.", field)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = {name: archive.getinfo(name) for name in archive.namelist()}
            top = min((name for name in names if name.rpartition("/")[2] in _ROOTS), key=len, default="")
            prefix = top.removesuffix(top.rpartition("/")[2])

            def get(key: str) -> bytes | None:
                info = names.get(prefix + key)
                if info is None:
                    return None
                if info.file_size > _MOST_CHUNK_BYTES:
                    raise ZarrError(f"has a chunk of {info.file_size:,} bytes")
                return archive.read(info)

            return decode(get, field, check, labels=labels, series=series, time=time, z=z)
    except CellsparseError:
        raise
    except ZIP_ERRORS as error:
        raise InvalidArgument(f"The {field} is a truncated or broken zip file: {error}.", field) from error


def folder_reader(root: Path) -> Get:
    """Return what reads the keys of a folder on this machine."""

    def get(key: str) -> bytes | None:
        path = root / key
        return path.read_bytes() if path.is_file() else None

    return get


def decode(
    get: Get,
    field: str,
    check: Callable[[Header], None],
    *,
    labels: bool = False,
    series: int | None = None,
    time: int | None = None,
    z: int | None = None,
) -> tuple[npt.NDArray[np.generic], Header]:
    """Return the pixels of the largest level, in the order of its axes without those of length 1, and the header.

    Args:
        get: Reads a key; only chunks that are needed are read.
        field: Name of the request's field, for messages.
        check: Called with the header before a chunk is read; raises to refuse it.
        labels: Whether to take the group's label image, where it has one.
        series: Which image of a group that holds several, from 0; None: the only one.
        time: Which time point, from 0; None: all, which `check` refuses if there are several.
        z: Which plane, from 0; None: all.

    Raises:
        InvalidArgument: It is no OME-Zarr image, or cannot be read.
    """
    try:
        path, found = _image(get, labels=labels, series=series)
        axes, scale = _axes(found)
        dataset = str(found["datasets"][0]["path"])
        array = open_array(get, f"{path}{dataset}/")
        if len(axes) != len(array.shape):
            raise ZarrError(f"has an array of {len(array.shape)} axes, but names {len(axes)}")
        index = _index(array, axes, time, z)
        kept = [axis for axis in range(len(axes)) if axis not in index]
        header = Header(
            shape=tuple(array.shape[axis] for axis in kept),
            axes="".join(axes[axis] for axis in kept),
            dtype=array.dtype,
            spacing=scale,
            channels=_channel_names(get, path, array.shape[axes.index("C")] if "C" in axes else 1),
        )
        check(header)
        return read_array(get, array, index, _MOST_CHUNK_BYTES), header
    except ZarrError as error:
        raise InvalidArgument(f"The {field} is an OME-Zarr that {error}.", field) from error
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f"The {field} is an OME-Zarr whose metadata are not understood ({error}).", field
        ) from error


def count_times(get: Get, field: str, series: int | None = None) -> int:
    """Return the number of time points of an image, 1 for one without such an axis.

    Raises:
        InvalidArgument: It is no OME-Zarr image.
    """
    try:
        path, found = _image(get, labels=False, series=series)
        axes, _ = _axes(found)
        array = open_array(get, f"{path}{found['datasets'][0]['path']}/")
        return array.shape[axes.index("T")] if "T" in axes else 1
    except (ZarrError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"The {field} is an OME-Zarr that cannot be read: {error}.", field) from error


def _image(get: Get, *, labels: bool, series: int | None) -> tuple[str, dict[str, Any]]:
    """Return the folder of an image and its description."""
    path = _series(get, series)
    about = attributes(get, path)
    if labels and about is not None and "image-label" not in about:
        inner = (attributes(get, f"{path}labels/") or {}).get("labels") or []
        if len(inner) > 1:
            names = ", ".join(str(name)[:40] for name in inner[:8])
            raise ZarrError(f"holds {len(inner)} label images ({names}); keep one of them in labels/")
        if inner:
            path = f"{path}labels/{inner[0]}/"
            about = attributes(get, path)
    if about is None or not about.get("multiscales"):
        raise ZarrError("has no image (multiscales) in its group; give the group of one image")
    if ".." in f"{path}/{about['multiscales'][0]['datasets'][0]['path']}".split("/"):
        raise ZarrError("names a folder above its own")
    return path, about["multiscales"][0]


def _series(get: Get, number: int | None) -> str:
    """Return the folder of the chosen image: "" for the group itself, "3/" in a group that holds several."""
    about = attributes(get, "") or {}
    if about.get("multiscales") or not about.get(_LAYOUT):
        names = [""]
    else:
        listed = (attributes(get, "OME/") or {}).get("series")
        counted = (str(at) for at in range(_MOST_SERIES))
        names = listed if isinstance(listed, list) else list(takewhile(lambda at: attributes(get, f"{at}/"), counted))
    if number is None and len(names) != 1:
        raise ZarrError(f"holds {len(names)} images; choose one by its number with series (--series)")
    if not 0 <= (number or 0) < len(names):
        raise ZarrError(f"holds {len(names)} image(s), so that series {number} does not exist")
    name = str(names[number or 0])
    return f"{name}/" if name else ""


def _axes(found: dict[str, Any]) -> tuple[str, tuple[float, ...]]:
    """Return one letter per axis and micrometres per pixel along z, y and x, empty if they are not known."""
    named = found["axes"]
    axes = "".join(str(axis["name"] if isinstance(axis, dict) else axis).upper() for axis in named)
    if len(axes) != len(named) or not set(axes) <= set("TCZYX") or len(set(axes)) != len(axes):
        raise ZarrError(f"has axes {axes[:20]!r}; allowed: t, c, z, y and x")
    scale = [1.0] * len(axes)
    for part in (found["datasets"][0], found):
        for change in part.get("coordinateTransformations") or ():
            if change.get("type") == "scale" and len(change.get("scale") or ()) == len(axes):
                scale = [old * float(factor) for old, factor in zip(scale, change["scale"], strict=True)]
    sizes: dict[str, float] = {}
    for axis, entry, size in zip(axes, named, scale, strict=True):
        unit = unit_micrometres(str(entry.get("unit"))) if isinstance(entry, dict) else None
        if unit is not None and math.isfinite(size) and 0 < abs(size * unit) <= 1e5:
            sizes[axis] = float(f"{abs(size * unit):.6g}")
    if not {"Y", "X"} <= set(sizes):
        return axes, ()
    return axes, (sizes.get("Z", sizes["X"]), sizes["Y"], sizes["X"])


def _channel_names(get: Get, path: str, count: int) -> tuple[str, ...]:
    """Return the names of an image's channels, empty if they are not all named."""
    omero = (attributes(get, path) or {}).get("omero")
    found = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(entry, dict) for entry in found):
        return ()
    return tuple(str(entry.get("label") or at)[:100] for at, entry in enumerate(found))


def _index(array: ZarrArray, axes: str, time: int | None, z: int | None) -> dict[int, int]:
    """Return the places along axes of which only one is read."""
    index = {at: 0 for at, axis in enumerate(axes) if array.shape[at] == 1 and axis not in "YX"}
    for axis, name, number, what in (("T", "time", time, "time point(s)"), ("Z", "z", z, "plane(s)")):
        if number is None:
            continue
        count = array.shape[axes.index(axis)] if axis in axes else 1
        if not 0 <= number < count:
            raise ZarrError(f"has {count} {what}, so that {name} {number} does not exist")
        if axis in axes:
            index[axes.index(axis)] = number
    return index
