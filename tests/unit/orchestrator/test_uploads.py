"""Uploads: all faults in one answer, what was read is counted, items without a cell are good."""

import io
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellsparse_common.datasets import read_image
from cellsparse_common.errors import InvalidArgument, ResourceExhausted, to_status
from cellsparse_common.faults import Faults, merge, spelled_out
from cellsparse_common.imaging.label_formats import LabelOutput, encode
from cellsparse_common.storage import FolderStore
from cellsparse_orchestrator.catalogue.uploads import DatasetUpload, UploadLimits
from cellsparse_proto.v1 import common_pb2, dataset_pb2

TRAIN, VAL = common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL
LABEL = np.zeros((20, 30), np.int32)
LABEL[2:8, 2:8], LABEL[12:18, 20:26] = 1, 2
MASK = (LABEL > 0).astype(np.uint8) * 255
SPARSE = np.where(LABEL == 1, 1, -1)
REGION = (
    b'[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[2, 2], [8, 2], [8, 8], [2, 8]]]}},'
    b'{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [30, 0], [30, 20], [0, 20]]]},'
    b'"properties": {"classification": "Region*"}}]'
)


def tiff(array):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack")
    return buffer.getvalue()


IMAGE = tiff(np.zeros((20, 30), np.uint8))


def messages(*items, end=True, kind=0):
    make = dataset_pb2.CreateDatasetRequest
    yield make(header=dataset_pb2.DatasetHeader(name="x", label_kind=kind))
    for name, split, image, label in items:
        for role, data in ((1, image), (2, label)):
            yield make(file=dataset_pb2.FileHeader(item=name, split=split, role=role))
            content = data if isinstance(data, bytes) else tiff(data)
            if content:
                yield make(chunk=content)
    if end:
        yield make(end=dataset_pb2.UploadEnd(items=len(items)))


def upload(tmp_path, *items, max_file_bytes=10**6, **options):
    limits = UploadLimits(max_pixels=10_000, max_file_bytes=max_file_bytes)
    made = DatasetUpload(FolderStore(tmp_path), tmp_path, limits, FolderStore(tmp_path / "store"))
    made.read(messages(*items, **options))
    return made


def test_what_was_read_is_counted(tmp_path):
    empty = np.zeros_like(LABEL)
    items = [
        ("a", TRAIN, IMAGE, LABEL),
        ("b", VAL, IMAGE, empty),
        ("c", VAL, IMAGE, SPARSE),
        ("d", TRAIN, IMAGE, REGION),
    ]
    made = upload(tmp_path, *items)
    found = [
        (item.item, item.split, item.cells, item.background_pixels, item.unlabelled_pixels, item.ignored_shapes)
        for item in made.report.items
    ]
    assert found == [
        ("a", TRAIN, 2, 600 - 72, 0, 0),
        ("b", VAL, 0, 600, 0, 0),
        ("c", VAL, 1, 0, 564, 0),
        ("d", TRAIN, 1, 0, 564, 1),
    ]
    assert made.report.items[3].notes == ["feature 2 is of class 'Region*', and QuPath ignores classes that end with *"]
    report = made.report
    assert (report.cells, report.background_pixels, report.unlabelled_pixels, report.ignored_shapes) == (
        4,
        1128,
        1128,
        1,
    )
    assert [item.cells for item in made.items] == [2, 0, 1, 1]


def test_a_photo_is_stored_upright_and_the_report_says_so(tmp_path):
    buffer, tags = io.BytesIO(), Image.Exif()
    tags[274] = 6  # its first row is the right side: stored as 30 x 20 pixels, it is 20 x 30 pixels upright
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(buffer, "JPEG", exif=tags.tobytes())
    made = upload(tmp_path, ("a", TRAIN, buffer.getvalue(), LABEL))
    assert list(made.report.items[0].notes) == [
        "its image was turned upright, as viewers show it (EXIF orientation 6), and its labels have to fit the upright "
        "image"
    ]
    assert read_image(FolderStore(tmp_path), made.items[0]).shape == LABEL.shape


def test_a_dataset_without_any_cell_is_refused(tmp_path):
    empty = np.zeros_like(LABEL)
    for kind in (0, dataset_pb2.LABEL_KIND_BINARY):
        with pytest.raises(InvalidArgument, match=r"no labelled cell in any of its items \(2, the first is 'a'\)"):
            upload(tmp_path, ("a", TRAIN, IMAGE, empty), ("b", VAL, IMAGE, empty), kind=kind)


def test_all_faults_are_in_one_answer(tmp_path):
    stack = tiff(np.zeros((12, 20, 30), np.uint8))
    items = [
        ("good", TRAIN, IMAGE, LABEL),
        ("mask", TRAIN, IMAGE, MASK),
        ("size", TRAIN, IMAGE, LABEL[1:]),
        ("broken", VAL, IMAGE[:100], LABEL),
        ("empty", VAL, b"", LABEL),
        ("stack", VAL, stack, np.zeros((12, 20, 30), np.uint8)),
        ("large", VAL, IMAGE, np.random.default_rng(0).integers(0, 9, (200, 200), np.int32)),
        ("another", VAL, IMAGE, LABEL),
    ]
    with pytest.raises(InvalidArgument) as caught:
        upload(tmp_path, *items, max_file_bytes=50_000)
    sentences = [sentence for _, sentence in caught.value.violations]
    words = ["'mask'", "'size': is 19", "'broken'", "'empty' is empty", "'stack'", "'large' is larger than"]
    assert len(sentences) == 6
    for word, sentence in zip(words, sentences, strict=True):
        assert word.split(":")[0] in sentence
    assert "--label-kind binary" in sentences[0]
    assert caught.value.message.startswith(
        "6 faults in this upload, of which nothing is kept. The label of item 'mask'"
    )
    lines = spelled_out(caught.value).message.splitlines()
    assert lines[1:] == sentences


def test_faults_are_told_where_the_client_gives_up(tmp_path):
    def stream():
        yield from messages(("a", TRAIN, IMAGE, MASK), ("c", TRAIN, IMAGE, LABEL[1:]), end=False)
        raise InvalidArgument("part is missing.", "part")  # as the server's check of an empty message does

    limits = UploadLimits(max_pixels=10_000, max_file_bytes=10**6)
    made = DatasetUpload(FolderStore(tmp_path), tmp_path, limits, FolderStore(tmp_path / "store"))
    with pytest.raises(InvalidArgument, match="2 faults") as caught:
        made.read(stream())
    assert [field for field, _ in caught.value.violations] == ["label of item 'a'", "label of item 'c'"]
    local = Faults()
    local.add(InvalidArgument("b.tif cannot be read: Permission denied.", "image of item 'b'"))
    both = merge(local, caught.value)
    assert both.message.splitlines()[0] == "3 faults in this upload, of which nothing is kept."
    assert [field for field, _ in both.violations] == ["image of item 'b'", "label of item 'a'", "label of item 'c'"]
    with pytest.raises(InvalidArgument, match="'a' is in the upload twice"):
        upload(tmp_path, ("a", TRAIN, IMAGE, LABEL), ("a", TRAIN, IMAGE, LABEL))


def test_one_fault_stays_as_it_is(tmp_path):
    with pytest.raises(ResourceExhausted, match=r"^The label file of item 'a' is larger than"):
        upload(tmp_path, ("a", TRAIN, IMAGE, tiff(np.zeros((100, 100), np.int32))), max_file_bytes=5_000)


def test_many_faults_are_counted_and_fit_into_an_answer(tmp_path):
    items = [(f"{number:03d}-{'long name ' * 15}", TRAIN, IMAGE, MASK) for number in range(47)]
    with pytest.raises(InvalidArgument) as caught:
        upload(tmp_path, *items)
    error = caught.value
    assert len(error.violations) == 21
    assert error.violations[-1] == ("items", "27 more faults are not listed.")
    assert error.message.startswith("47 faults in this upload")
    sent = 4 * len(to_status(error).SerializeToString()) / 3 + len(error.message)
    assert sent < 8_000  # gRPC's limit is 8 KiB
    assert len(spelled_out(error).message.splitlines()) == 22


def stored_messages(label=LABEL, chunk=b"", **header):
    """An upload of one item whose image is in the store."""
    make, file = dataset_pb2.CreateDatasetRequest, dataset_pb2.FileHeader
    yield make(header=dataset_pb2.DatasetHeader(name="x"))
    yield make(file=file(item="a", split=TRAIN, role=1, **header))
    if chunk:
        yield make(chunk=chunk)
    yield make(file=file(item="a", split=TRAIN, role=2))
    yield make(chunk=tiff(label))
    yield make(end=dataset_pb2.UploadEnd(items=1))


def test_images_are_read_in_the_store(tmp_path):
    store = FolderStore(tmp_path / "store")
    pixels = np.random.default_rng(0).integers(0, 9, (3, 20, 30)).astype(np.int32)
    with zipfile.ZipFile(io.BytesIO(encode("ome-zarr", LabelOutput(label=pixels, spacing=(2, 0.5, 0.5))))) as archive:
        for name in archive.namelist():
            store.put(f"imports/plate/a.zarr/{name}", archive.read(name))

    def read(**options):
        limits = UploadLimits(max_pixels=10_000, max_file_bytes=10**6)
        made = DatasetUpload(FolderStore(tmp_path / "spool"), tmp_path, limits, store)
        made.read(stored_messages(**options))
        return made.items

    (stack,) = read(stored="plate/a.zarr", label=np.stack([LABEL] * 3))
    assert (list(stack.shape), stack.axes, list(stack.spacing)) == ([3, 20, 30], "ZYX", [2, 0.5, 0.5])
    (plane,) = read(stored="plate/a.zarr", z=1)
    assert list(plane.shape) == [20, 30]
    assert np.array_equal(read_image(FolderStore(tmp_path / "spool"), plane), pixels[1])
    for options, words in [
        ({"stored": "none.zarr"}, "Item 'a': The store holds no OME-Zarr at imports/none.zarr/"),
        ({"stored": "plate/a.zarr", "z": 3}, "so that z 3 does not exist"),
        ({"stored": "plate/a.zarr"}, "is 20 x 30 pixels, its image 3 x 20 x 30"),
        ({"stored": "plate/../a.zarr"}, "component '..'"),
        ({"stored": "plate/a.zarr", "chunk": b"x"}, "is in the store already; send nothing of it"),
        ({"z": 1, "chunk": IMAGE}, "they choose a part of an image that is in the store"),
    ]:
        with pytest.raises(InvalidArgument, match=words):
            read(**options)
