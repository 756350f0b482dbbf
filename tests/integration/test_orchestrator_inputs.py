"""Wrong input at the orchestrator's door: an exact status, a sentence that names it, and nothing changed."""

import io
import struct
import zlib

import grpc
import numpy as np
import pytest
import tifffile
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, messages, refused, snapshot, tiny_items, until
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, sparsifier_pb2, trainer_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
TRAIN, TEST = common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_TEST
IMAGE, LABEL = blobs()
IMAGE_FILE, LABEL_FILE = encode_tiff(IMAGE), encode_labels(LABEL)


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    # Nobody answers at port 1: whatever is wrong must be found before anybody is asked.
    settings = {
        "CELLSPARSE_LAUNCHER": "static",
        "CELLSPARSE_TRAINERS": "unet=127.0.0.1:1",
        "CELLSPARSE_SPARSIFIER": "127.0.0.1:1",
        "CELLSPARSE_MAX_IMAGE_FILE_MIB": "2",
    }
    home = tmp_path_factory.mktemp("home")
    with Orchestrator(home, **settings) as started:
        yield started


@pytest.fixture(scope="module")
def dataset(orchestrator):
    return orchestrator.upload()


@pytest.fixture(autouse=True)
def unchanged(orchestrator, dataset):
    before = snapshot(orchestrator)
    yield
    assert snapshot(orchestrator) == before


def huge_png() -> bytes:
    """A PNG file of about 100 bytes whose header says 12,000 x 12,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def huge_tiff() -> bytes:
    """A TIFF file of less than 1 kB whose header says 12,000 x 12,000 pixels."""
    small = encode_tiff(np.zeros((16, 16), np.uint8))
    with tifffile.TiffFile(io.BytesIO(small)) as tiff:
        tags = tiff.pages[0].tags
        places = [tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    data = bytearray(small)
    for place in places:
        data[place : place + 4] = struct.pack("<I", 12_000)
    return bytes(data)


def tiff(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", planarconfig="contig" if array.ndim == 3 else None)
    return file.getvalue()


BAD_FILES = {
    "label of another size": (IMAGE_FILE, encode_labels(LABEL[:32]), INVALID, "32"),
    "float label": (IMAGE_FILE, tiff(LABEL.astype(np.float32) + 0.5), INVALID, "label"),
    "label with nothing labelled": (IMAGE_FILE, encode_labels(np.full_like(LABEL, -1)), INVALID, "no labelled cell"),
    "truncated TIFF": (IMAGE_FILE[: len(IMAGE_FILE) // 2], LABEL_FILE, INVALID, "image"),
    "truncated label": (IMAGE_FILE, LABEL_FILE[: len(LABEL_FILE) // 2], INVALID, "label"),
    "seventeen channels": (tiff(np.zeros((64, 64, 17), np.uint8)), LABEL_FILE, INVALID, "17"),
    "no image at all": (b"hello", LABEL_FILE, INVALID, "image"),
    "empty image": (b"", LABEL_FILE, INVALID, "empty"),
    "144 megapixels in a PNG header": (huge_png(), LABEL_FILE, EXHAUSTED, "144"),
    "144 megapixels in a TIFF header": (huge_tiff(), LABEL_FILE, EXHAUSTED, "144"),
    "144 megapixels in a label's header": (IMAGE_FILE, huge_png(), EXHAUSTED, "144"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_after_good_ones(orchestrator, case):
    image, label, status, word = BAD_FILES[case]
    assert "header" not in case or min(len(image), len(label)) < 1024
    items = [*tiny_items(3), ("the bad one", TRAIN, image, label)]
    error = refused(orchestrator.datasets.CreateDataset, messages(items))
    assert error.status == status, error.message
    assert "the bad one" in error.message
    assert word in error.message
    assert error.violations or status == EXHAUSTED


def header(**fields):
    return dataset_pb2.CreateDatasetRequest(header=dataset_pb2.DatasetHeader(**{"name": "x", **fields}))


def file(item, role, split=TRAIN):
    return dataset_pb2.CreateDatasetRequest(file=dataset_pb2.FileHeader(item=item, role=role, split=split))


def chunk(data):
    return dataset_pb2.CreateDatasetRequest(chunk=data)


def end(items):
    return dataset_pb2.CreateDatasetRequest(end=dataset_pb2.UploadEnd(items=items))


def good(item, split=TRAIN):
    return [file(item, 1, split), chunk(IMAGE_FILE), file(item, 2, split), chunk(LABEL_FILE)]


BAD_STREAMS = {
    "nothing": ([], "end message"),
    "no item": ([header(), end(0)], "end.items"),
    "no end": ([header(), *good("a")], "end message"),
    "another number of items": ([header(), *good("a"), end(2)], "names 2 items, but 1 came"),
    "more after the end": ([header(), *good("a"), end(1), *good("b")], "end comes last"),
    "half an item at the end": ([header(), file("a", 1), chunk(IMAGE_FILE), end(1)], "'a'"),
    "no header": (good("a"), "header"),
    "two headers": ([header(), *good("a"), header()], "second header"),
    "chunk before file": ([header(), chunk(b"x")], "chunk"),
    "image without label": ([header(), file("a", 1), chunk(IMAGE_FILE), *good("b")], "'a'"),
    "label without image": ([header(), *good("b"), file("a", 2), chunk(LABEL_FILE), end(2)], "'a'"),
    "two images": ([header(), file("a", 1), chunk(IMAGE_FILE), file("a", 1)], "two image files"),
    "same item twice": ([header(), *good("a"), *good("a")], "'a'"),
    "two splits": ([header(), file("a", 1), chunk(IMAGE_FILE), file("a", 2, TEST)], "SPLIT_TEST"),
    "item that climbs": ([header(), *good("../../x")], "../../x"),
    "name that climbs": ([header(name="../../x"), *good("a")], "../../x"),
    "no split": ([header(), file("a", 1, 0)], "split"),
    "unknown role": ([header(), file("a", 9)], "role"),
    "unknown label kind": ([header(label_kind=9)], "label_kind"),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_a_bad_stream(orchestrator, case):
    stream, word = BAD_STREAMS[case]
    error = refused(orchestrator.datasets.CreateDataset, iter(stream))
    assert error.status == INVALID
    assert word in error.message


def test_a_file_that_is_too_large(orchestrator):
    stream = [header(), file("a", 1), *[chunk(bytes(2**20))] * 3]
    error = refused(orchestrator.datasets.CreateDataset, iter(stream))
    assert error.status == EXHAUSTED
    assert "larger than 2 MiB" in error.message


def test_an_upload_that_breaks_off(orchestrator):
    def stream():
        yield header()
        yield from good("a")
        raise RuntimeError

    with pytest.raises(grpc.RpcError):
        orchestrator.datasets.CreateDataset(stream(), timeout=PATIENCE)
    # The client does not wait for the server, which cleans up a moment later.
    until(lambda: not any((orchestrator.home / "uploads").iterdir()))


def sparsify(dataset_id, **settings):
    fields = {"mode": sparsifier_pb2.SELECTION_MODE_MINMAX, "k": 4, "background": 1, **settings}
    return dataset_pb2.CreateSparseDatasetRequest(
        dataset_id=dataset_id, settings=sparsifier_pb2.SparsifySettings(**fields)
    )


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"k": 0}, "k"), ({"mode": 99}, "mode"), ({"mode": 0}, "mode"), ({"background": 99}, "background")],
)
def test_bad_sparsify_settings(orchestrator, dataset, settings, field):
    error = refused(orchestrator.datasets.CreateSparseDataset, sparsify(dataset.id, **settings))
    assert error.status == INVALID
    assert any(path.endswith(field) for path, _ in error.violations), error.violations


@pytest.mark.parametrize(("dataset_id", "status"), [("ds-unknown", NOT_FOUND), ("../../x", INVALID), ("", INVALID)])
def test_unknown_datasets_and_bad_ids(orchestrator, dataset_id, status):
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
    calls = [
        (orchestrator.datasets.GetDataset, dataset_pb2.GetDatasetRequest(dataset_id=dataset_id)),
        (orchestrator.datasets.ListDatasetItems, dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset_id)),
        (orchestrator.datasets.DeleteDataset, dataset_pb2.DeleteDatasetRequest(dataset_id=dataset_id)),
        (orchestrator.datasets.CreateSparseDataset, sparsify(dataset_id)),
        (orchestrator.runs.CreateRun, orchestrator_pb2.CreateRunRequest(dataset_id=dataset_id, settings=settings)),
    ]
    for call, request in calls:
        error = refused(call, request)
        assert error.status == status, request
        assert dataset_id in error.message


def test_runs_that_cannot_be(orchestrator, dataset):
    def create(**settings):
        fields = {"unet": trainer_pb2.UnetSettings(), **settings}
        request = orchestrator_pb2.CreateRunRequest(
            dataset_id=dataset.id, settings=trainer_pb2.TrainingSettings(**fields), max_attempts=99
        )
        return refused(orchestrator.runs.CreateRun, request)

    error = create(steps=0, learning_rate=7)
    assert error.status == INVALID
    assert {path for path, _ in error.violations} == {"max_attempts", "settings.steps", "settings.learning_rate"}
    settings = trainer_pb2.TrainingSettings(stardist=trainer_pb2.StardistSettings())
    request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset.id, settings=settings)
    error = refused(orchestrator.runs.CreateRun, request)
    assert error.status == grpc.StatusCode.FAILED_PRECONDITION
    assert "unet" in error.message


def test_page_tokens_of_others(orchestrator, dataset):
    page = {"page_token": "bm90IG91cnM="}
    for call, request in (
        (orchestrator.runs.ListRuns, orchestrator_pb2.ListRunsRequest(page=page)),
        (orchestrator.runs.ListModels, orchestrator_pb2.ListModelsRequest(page=page)),
        (orchestrator.datasets.ListDatasets, dataset_pb2.ListDatasetsRequest(page=page)),
        (
            orchestrator.datasets.ListDatasetItems,
            dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset.id, page=page),
        ),
    ):
        error = refused(call, request)
        assert error.status == INVALID
        assert error.violations[0][0] == "page.page_token"


def test_a_sparsifier_that_is_away(orchestrator, dataset):
    error = refused(orchestrator.datasets.CreateSparseDataset, sparsify(dataset.id))
    assert error.status == grpc.StatusCode.UNAVAILABLE
    assert "sparsifier" in error.message
