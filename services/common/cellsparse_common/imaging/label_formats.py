"""The file formats in which label images are given to other tools, one name each.

Writers are loaded when they are used: command lines list the formats without loading NumPy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class LabelOutput:
    """What a writer needs."""

    label: "npt.NDArray[np.integer[Any]]"
    """Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n."""
    spacing: Sequence[float] = ()
    """Micrometres per pixel along each axis; empty if not known."""
    image_name: str = "image.tif"
    """Name of the image's file."""
    background: bool = False
    """Whether outlines are to hold the background, as those of annotations do, so that the rest is not labelled."""


@dataclass(frozen=True, kw_only=True)
class LabelFormat:
    """A format."""

    ending: str
    """Of a file's name, after the image's without its own ending."""
    media: str
    """Media type."""
    write: Callable[[LabelOutput], bytes]
    number: "trainer_pb2.OutputFormat"
    """In calls."""
    stacks: bool = True
    """Whether it holds stacks."""


def _tiff(file: LabelOutput) -> bytes:
    from cellsparse_common.imaging.images import encode_tiff

    stack = file.label.ndim == 3
    return encode_tiff(file.label.astype("int32", copy=False), stack=stack, spacing=file.spacing if stack else ())


def _ome_tiff(file: LabelOutput) -> bytes:
    from cellsparse_common.imaging.ome_tiff import encode_ome_tiff

    return encode_ome_tiff(file.label, file.spacing, file.image_name)


def _ome_zarr(version: str) -> Callable[[LabelOutput], bytes]:
    def write(file: LabelOutput) -> bytes:
        from cellsparse_common.imaging.ome_zarr_output import encode_ome_zarr

        return encode_ome_zarr(file.label, file.spacing, file.image_name, version=version)

    return write


def _geojson(file: LabelOutput) -> bytes:
    from cellsparse_common.imaging.vector_output import encode_geojson

    return encode_geojson(file.label, background=file.background)


def _roi(file: LabelOutput) -> bytes:
    from cellsparse_common.imaging.vector_output import encode_rois

    return encode_rois(file.label, background=file.background)


def _coco(file: LabelOutput) -> bytes:
    from cellsparse_common.imaging.coco import encode_coco

    return encode_coco(file.label, file.image_name)


def _seg(file: LabelOutput) -> bytes:
    from cellsparse_common.imaging.cellpose_seg import encode_seg

    return encode_seg(file.label, file.image_name)


FORMATS: dict[str, LabelFormat] = {
    "tiff": LabelFormat(number=trainer_pb2.OUTPUT_FORMAT_LABEL_TIFF, ending=".tif", media="image/tiff", write=_tiff),
    "geojson": LabelFormat(
        number=trainer_pb2.OUTPUT_FORMAT_GEOJSON, ending=".geojson", media="application/geo+json", write=_geojson
    ),
    "roi": LabelFormat(number=trainer_pb2.OUTPUT_FORMAT_IMAGEJ_ROI, ending=".zip", media="application/zip", write=_roi),
    "ome-tiff": LabelFormat(
        number=trainer_pb2.OUTPUT_FORMAT_OME_TIFF, ending=".ome.tif", media="image/tiff", write=_ome_tiff
    ),
    "ome-zarr": LabelFormat(
        number=trainer_pb2.OUTPUT_FORMAT_OME_ZARR,
        ending=".ome.zarr.zip",
        media="application/zip",
        write=_ome_zarr("0.5"),
    ),
    "ome-zarr-0.4": LabelFormat(
        number=trainer_pb2.OUTPUT_FORMAT_OME_ZARR_0_4,
        ending=".ome.zarr.zip",
        media="application/zip",
        write=_ome_zarr("0.4"),
    ),
    "coco": LabelFormat(
        number=trainer_pb2.OUTPUT_FORMAT_COCO, ending=".json", media="application/json", write=_coco, stacks=False
    ),
    "seg": LabelFormat(
        number=trainer_pb2.OUTPUT_FORMAT_CELLPOSE_SEG, ending="_seg.npy", media="application/octet-stream", write=_seg
    ),
}
"""By the word for it on the command line, in the SDK and in REST."""


def name_of(number: "trainer_pb2.OutputFormat") -> str:
    """Return the word for a format; for one that is not set, "tiff"."""
    return next((name for name, found in FORMATS.items() if found.number == number), "tiff")


def file_name(name: str, image_name: str, what: str = "-labels") -> str:
    """Return the name of a label file beside its image: Cellpose looks for its own under one name only.

    Args:
        name: Of the format.
        image_name: Name of the image's file.
        what: What to write behind the image's name, for the other formats.
    """
    stem = (image_name.rpartition(".")[0] or image_name).removesuffix(".ome")
    return stem + ("" if name == "seg" else what) + FORMATS[name].ending


def encode(name: str, file: LabelOutput) -> bytes:
    """Return labels as a file of a format.

    Raises:
        InvalidArgument: There is no such format, or it cannot hold a stack.
        ResourceExhausted: The cells' outlines are too long.
    """
    if name not in FORMATS:
        raise InvalidArgument(f"The format is {name!r}; allowed: {', '.join(FORMATS)}.", "format")
    if file.label.ndim == 3 and not FORMATS[name].stacks:
        raise InvalidArgument(
            f"Format {name} holds 2D images only, and these labels are a stack of {len(file.label)} planes; ask for "
            f"{', '.join(other for other, found in FORMATS.items() if found.stacks)}.",
            "format",
        )
    return FORMATS[name].write(file)
