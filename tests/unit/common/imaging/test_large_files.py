"""Large files are read, written and looked at in parts, with the same result as small ones at once."""

import io

import numpy as np
import pytest
import tifffile

from cellsparse_common import datasets
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging import disk_array, file_content, images, tiff
from cellsparse_common.imaging.file_content import ContentReader, MappedFile, read_content
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.labels import count_cells, count_labelled, read_label_file
from cellsparse_common.scoring import matching
from cellsparse_common.scoring.matching import match_counts
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2

RNG = np.random.default_rng(0)
LABEL = np.kron(RNG.integers(0, 400, (20, 16)), np.ones((12, 10))).astype(np.int32)
IMAGE = RNG.integers(0, 60_000, (*LABEL.shape, 3)).astype(np.uint16)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(file_content, "MAPPED_BYTES", 1)
    monkeypatch.setattr(file_content, "_SMALL", 0)
    monkeypatch.setattr(file_content, "_LET_GO", 1000)
    for module in (disk_array, tiff, images, datasets):
        monkeypatch.setattr(module, "DISK_BYTES", 1)
    monkeypatch.setattr(disk_array, "BAND_BYTES", 4000)
    monkeypatch.setattr(matching, "BAND_BYTES", 4000)
    monkeypatch.setattr(datasets, "_LARGE", 1)


@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "zlib", "tile": (64, 64)}, {"compression": "lzw", "rowsperstrip": 7}],
    ids=["contiguous", "big-endian", "tiles", "strips"],
)
def test_a_mapped_file_is_decoded_as_bytes_are(tmp_path, everything_is_large, options):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", **options)
    data = read_content(path)
    path.unlink()
    assert isinstance(data, MappedFile)
    found = decode_image(data, max_pixels=10**6)
    assert found.axes == "YXC"
    np.testing.assert_array_equal(found.array, IMAGE)


def test_only_tiff_files_are_mapped(tmp_path, everything_is_large):
    path = tmp_path / "labels.json"
    path.write_bytes(b'{"annotations": []}')
    assert read_content(path) == b'{"annotations": []}'


def test_a_content_is_read_as_a_file_is(everything_is_large):
    data = bytes(range(256)) * 20
    reader, plain = ContentReader(data), io.BytesIO(data)
    heard = []
    reader.on_read = lambda: heard.append(reader.tell())
    for offset, whence, size in ((5, 0, 10), (100, 1, 3000), (-20, 2, 50), (0, 0, -1), (0, 2, 4)):
        assert reader.seek(offset, whence) == plain.seek(offset, whence)
        assert reader.read(size) == plain.read(size)
    assert heard


def test_items_are_stored_and_read_in_parts(tmp_path, everything_is_large):
    store = FolderStore(tmp_path)
    item = datasets.put_item(store, name="a", split=common_pb2.SPLIT_TRAIN, image=IMAGE, label=LABEL)
    np.testing.assert_array_equal(datasets.read_image(store, item), IMAGE)
    np.testing.assert_array_equal(datasets.read_labels(store, item), LABEL)
    assert item.cells == len(np.unique(LABEL[LABEL > 0]))
    assert item.labelled_pixels == LABEL.size


def test_labels_are_checked_in_parts(everything_is_large):
    def read(values):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, photometric="minisblack")
        return read_label_file(buffer.getvalue(), shape=values.shape, max_pixels=10**6, partial=True).label

    np.testing.assert_array_equal(read(LABEL.astype(np.uint16)), LABEL)
    np.testing.assert_array_equal(read(LABEL.astype(np.float32)), LABEL)
    sparse = np.where(LABEL > 350, LABEL, -1).astype(np.int32)
    np.testing.assert_array_equal(read(sparse), sparse)
    assert count_cells(sparse) == len(np.unique(sparse)) - 1
    assert count_labelled(sparse) == (sparse >= 0).sum()
    wrong = sparse.copy()
    wrong[200, 11], wrong[230, 1] = -7, -9
    with pytest.raises(InvalidArgument, match="holds -7 at y=200, x=11"):
        read(wrong)


@pytest.mark.parametrize("lowest", [0, -1])
def test_overlaps_are_counted_in_parts(monkeypatch, lowest):
    true = np.where(LABEL > 80, LABEL, lowest)
    pred = np.roll(LABEL, (1, 1), axis=(0, 1)) * 7
    expected = match_counts(true, pred)
    monkeypatch.setattr(matching, "BAND_BYTES", 4000)
    monkeypatch.setattr(disk_array, "BAND_BYTES", 4000)
    assert match_counts(true, pred) == expected
    assert 0 < expected[0].tp < len(np.unique(true))
