"""File formats of labels, as commands take them."""

from enum import StrEnum


class Format(StrEnum):
    """File formats of predictions: the names in `cellsparse_common.imaging.label_formats`."""

    TIFF = "tiff"
    GEOJSON = "geojson"
    ROI = "roi"
    OME_TIFF = "ome-tiff"
    OME_ZARR = "ome-zarr"
    OME_ZARR_0_4 = "ome-zarr-0.4"
    COCO = "coco"
    SEG = "seg"
