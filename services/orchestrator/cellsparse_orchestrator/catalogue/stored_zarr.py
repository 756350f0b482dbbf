"""OME-Zarr images that others put into the object store, read there chunk by chunk."""

from cellsparse_common.errors import NotFound
from cellsparse_common.imaging.images import Image, read_ome_zarr
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.caller import only_project

_ROOTS = ("zarr.json", ".zattrs")


def read_stored_zarr(
    store: ObjectStore,
    path: str,
    *,
    max_pixels: int,
    axes: str = "",
    series: int | None = None,
    time: int | None = None,
    z: int | None = None,
) -> Image:
    """Return an image; of what is not asked for, no chunk is read.

    Callers who are limited to a project see what is below imports/<project>/.

    Args:
        store: Holds it.
        path: Of its group, below imports/.
        max_pixels: Most pixels (height x width, of a stack x planes) allowed.
        axes: What its axes are, where the caller knows.
        series: Which image of a group that holds several, from 0; None: the only one.
        time: Which time point, from 0; None: it is no time series.
        z: Which plane of a stack, from 0; None: all.

    Raises:
        NotFound: There is no such image.
        InvalidArgument: It is no path, no image, or lacks the part that is asked for.
        ResourceExhausted: It is too large.
        StorageError: The store failed.
    """
    prefix = keys.import_prefix(path)
    project_id = only_project()
    if project_id is not None and not path.startswith(f"{project_id}/"):
        raise _missing(prefix)
    if not any(store.exists(f"{prefix}{name}") for name in _ROOTS):
        raise _missing(prefix)

    def get(key: str) -> bytes | None:
        if not keys.is_key(f"{prefix}{key}"):
            return None  # of a broken or hostile description
        try:
            return store.get(f"{prefix}{key}")
        except NotFound:
            return None  # a chunk of nothing but the fill value

    return read_ome_zarr(get, max_pixels=max_pixels, field=f"image {prefix}", axes=axes, series=series, time=time, z=z)


def _missing(prefix: str) -> NotFound:
    return NotFound(f"The store holds no OME-Zarr at {prefix}.")
