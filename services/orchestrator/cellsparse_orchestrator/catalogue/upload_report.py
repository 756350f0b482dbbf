"""What was read of an upload, counted per item and for all."""

import math

from cellsparse_common.dataset_items import label_shape
from cellsparse_common.imaging.disk_array import in_bands
from cellsparse_common.imaging.labels import LabelFile
from cellsparse_proto.v1 import dataset_pb2

_MAX_NOTES = 20


def add_to_report(report: dataset_pb2.UploadReport, item: dataset_pb2.DatasetItem, read: LabelFile) -> None:
    """Count an item that was stored.

    Args:
        report: The report of the upload; changed.
        item: The item.
        read: Its label file.
    """
    unlabelled = math.prod(label_shape(item)) - item.labelled_pixels
    background = sum(int((rows == 0).sum()) for rows in in_bands(read.label))
    notes = list(read.notes)
    if len(notes) > _MAX_NOTES:
        notes[_MAX_NOTES - 1 :] = [f"{len(notes) - _MAX_NOTES + 1} more notes are not listed"]
    report.items.add(
        item=item.name,
        split=item.split,
        cells=item.cells,
        background_pixels=background,
        unlabelled_pixels=unlabelled,
        ignored_shapes=read.skipped,
        notes=notes,
    )
    report.cells += item.cells
    report.background_pixels += background
    report.unlabelled_pixels += unlabelled
    report.ignored_shapes += read.skipped
