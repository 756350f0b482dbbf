"""Files that are as we write them are known as such, and no others."""

import io

import numpy as np
import pytest
import tifffile

from cellsparse_common.imaging.canonical import is_canonical
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels, read_label_file
from cellsparse_proto.v1 import dataset_pb2

RANDOM = np.random.default_rng(0)
ARRAYS = [
    RANDOM.integers(0, 255, (700, 600), dtype=np.uint8),
    RANDOM.integers(0, 9, (300, 301), dtype=np.int32),
    RANDOM.integers(0, 9, (20, 30), dtype=np.uint16),
    RANDOM.integers(0, 255, (400, 400, 3), dtype=np.uint8),
    RANDOM.random((300, 400)).astype(np.float32),
]


def foreign(array, **options):
    buffer = io.BytesIO()
    photometric = "rgb" if array.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(buffer, array, photometric=photometric, compression="zlib", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda each: f"{each.dtype}-{each.shape}")
def test_only_files_as_we_write_them(array):
    file = encode_tiff(array)
    assert is_canonical(file, array)
    assert not is_canonical(file + b"more", array)
    assert not is_canonical(foreign(array), array)
    plain = {"metadata": None, "software": False, "datetime": False}
    assert not is_canonical(foreign(array, **plain, compressionargs={"level": 1}), array)
    assert not is_canonical(foreign(array, **plain, rowsperstrip=5), array)
    assert not is_canonical(foreign(np.stack([array, array]), **plain), array)
    assert not is_canonical(encode_tiff(array[:-1]), array)
    assert not is_canonical(b"no image", array)


def test_whether_a_label_file_holds_these_very_values():
    label = np.where(RANDOM.random((30, 40)) < 0.1, 1, -1).astype(np.int32)
    kinds = dataset_pb2.LABEL_KIND_INSTANCES, dataset_pb2.LABEL_KIND_BINARY
    found = [read_label_file(encode_labels(label), shape=label.shape, max_pixels=9999, kind=kind) for kind in kinds]
    assert [each.unchanged for each in found] == [True, False]
    small = read_label_file(encode_tiff(label.astype(np.int16)), shape=label.shape, max_pixels=9999)
    assert not small.unchanged
