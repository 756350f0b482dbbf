"""Datasets in the store: manifests, shared blobs, and what happens when they are damaged."""

import json

import numpy as np
import pytest
from google.protobuf import timestamp_pb2

from cellsparse_common import datasets
from cellsparse_common.errors import InvalidArgument, NotFound, StorageError
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2

CREATED = timestamp_pb2.Timestamp(seconds=1_790_000_000, nanos=5000)


class CountingStore(FolderStore):
    """Remembers which keys were written."""

    def __init__(self, root):
        super().__init__(root)
        self.written = []

    def put(self, key, data):
        self.written.append(key)
        super().put(key, data)


@pytest.fixture
def store(tmp_path):
    return CountingStore(tmp_path / "store")


def make_items(store, count=3):
    items = []
    for number in range(count):
        image = np.arange(12 * 15, dtype=np.uint16).reshape(12, 15) + number
        label = np.full((12, 15), -1, np.int32)
        label[0:3] = 0
        label[5:8, 2:5] = 4
        label[9:11, 9:12] = 9 if number else 4
        split = (common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST)[number % 3]
        items.append(datasets.put_item(store, name=f"item {number}", split=split, image=image, label=label))
    return items


def make_manifest(store, dataset_id="d-1"):
    items = make_items(store)
    summary = datasets.summarize(items, dataset_id=dataset_id, name="Nuclei", created_at=CREATED)
    return dataset_pb2.DatasetManifest(dataset=summary, items=items)


def test_round_trip(store):
    manifest = make_manifest(store)
    datasets.write_manifest(store, manifest)
    read = datasets.read_manifest(store, "d-1")
    assert read.version == 1
    assert read.dataset == manifest.dataset
    assert list(read.items) == list(manifest.items)
    assert manifest.version == 0  # the caller's message is left as it was
    image = datasets.read_image(store, read.items[1])
    assert image.dtype == np.uint16
    assert image[0, 0] == 1
    label = datasets.read_labels(store, read.items[1])
    assert label.dtype == np.int32
    assert sorted(np.unique(label)) == [-1, 0, 4, 9]


def test_items_say_what_they_hold(store):
    item = make_items(store, 2)[1]
    assert (item.name, item.split, list(item.shape), item.axes, item.dtype) == (
        "item 1",
        common_pb2.SPLIT_VAL,
        [12, 15],
        "YX",
        "uint16",
    )
    assert (item.cells, item.labelled_pixels) == (2, 45 + 9 + 6)
    colour = datasets.put_item(
        store,
        name="rgb",
        split=common_pb2.SPLIT_TRAIN,
        image=np.zeros((4, 5, 3), np.uint8),
        label=np.ones((4, 5), np.int32),
    )
    assert (list(colour.shape), colour.axes, colour.dtype) == ([4, 5, 3], "YXC", "uint8")
    assert datasets.read_image(store, colour).shape == (4, 5, 3)
    with pytest.raises(ValueError, match="does not belong"):
        datasets.put_item(
            store,
            name="x",
            split=common_pb2.SPLIT_TRAIN,
            image=np.zeros((4, 5), np.uint8),
            label=np.ones((5, 4), np.int32),
        )


def test_summary_counts(store):
    settings = sparsifier_pb2.SparsifySettings()
    summary = datasets.summarize(
        iter(make_items(store, 7)), dataset_id="d-2", name="n", created_at=CREATED, parent_id="d-1", sparsify=settings
    )
    assert (summary.items, summary.train_items, summary.val_items, summary.test_items) == (7, 3, 2, 2)
    assert (summary.cells, summary.train_cells) == (13, 5)  # the first item has one cell in two parts
    assert (summary.pixels, summary.labelled_pixels) == (7 * 180, 7 * 60)
    assert (summary.parent_id, summary.created_at) == ("d-1", CREATED)
    assert summary.HasField("sparsify")
    assert not datasets.summarize([], dataset_id="d", name="n", created_at=CREATED).HasField("sparsify")


def test_the_same_manifest_is_the_same_bytes(store, tmp_path):
    other = FolderStore(tmp_path / "other")
    for each in (store, other):
        datasets.write_manifest(each, make_manifest(each))
    key = keys.dataset_manifest("d-1")
    assert store.get(key) == other.get(key)
    assert json.loads(store.get(key))["version"] == 1


def test_blobs_are_written_once_and_shared(store):
    first = datasets.put_blob(store, b"bytes")
    assert datasets.put_blob(store, b"bytes") == first
    assert store.written == [keys.blob(first)]
    assert len(make_items(store, 3)) == 3
    labels = [key for key in store.written if key.startswith("blobs/")]
    assert len(labels) == 1 + 3 + 2  # two of the three label images are equal


def test_unknown_and_malformed_ids(store):
    with pytest.raises(NotFound, match="Dataset d-9 does not exist"):
        datasets.read_manifest(store, "d-9")
    with pytest.raises(InvalidArgument):
        datasets.read_manifest(store, "../../x")
    with pytest.raises(InvalidArgument):
        datasets.write_manifest(store, dataset_pb2.DatasetManifest())
    assert store.written == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: b"", "dataset d-1 in the store is damaged"),
        (lambda text: text[:-40], "dataset d-1 in the store is damaged"),
        (lambda text: b"\xff\xfe", "dataset d-1 in the store is damaged"),
        (lambda text: b"[1]", "dataset d-1 in the store is damaged"),
        (lambda text: b"[" * 100_000, "dataset d-1 in the store is damaged"),
        (lambda text: text.replace(b'"cells": "', b'"cells": "x'), "dataset d-1 in the store is damaged"),
        (lambda text: b"{}", "dataset d-1 has layout version 0; this release reads 1"),
        (lambda text: text.replace(b'"version": 1', b'"version": 2, "later": 3'), "layout version 2"),
        (lambda text: text.replace(b'"id": "d-1"', b'"id": "d-7"'), "names dataset 'd-7'"),
        (lambda text: text.replace(b'"YX"', b'"ZX"', 1), "item 'item 0' has axes 'ZX'"),
        (lambda text: text.replace(b'"15"', b'"0"', 1), "item 'item 0' has axes 'YX' and shape"),
    ],
)
def test_a_damaged_manifest_names_its_dataset(store, damage, words):
    datasets.write_manifest(store, make_manifest(store))
    key = keys.dataset_manifest("d-1")
    changed = damage(store.get(key))
    assert changed != store.get(key)
    store.put(key, changed)
    with pytest.raises(StorageError, match=words) as caught:
        datasets.read_manifest(store, "d-1")
    assert caught.value.message.endswith(".")
    assert len(caught.value.message) < 600


def test_a_damaged_or_missing_blob_is_noticed(store):
    item = make_items(store, 1)[0]
    key = keys.blob(item.image_sha256)
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(StorageError, match=f"image of item 'item 0' is damaged: blob {item.image_sha256}"):
        datasets.read_image(store, item)
    store.delete(keys.blob(item.label_sha256))
    with pytest.raises(StorageError, match="label image of item 'item 0' is missing"):
        datasets.read_labels(store, item)
    item.image_sha256 = "../../etc"
    with pytest.raises(StorageError, match="missing"):
        datasets.read_image(store, item)


def test_a_blob_of_another_kind_is_noticed(store):
    item = make_items(store, 1)[0]
    item.image_sha256 = datasets.put_blob(store, b"text")
    with pytest.raises(StorageError, match="image of item 'item 0' cannot be read: The image is not a TIFF"):
        datasets.read_image(store, item)
    item.label_sha256 = make_items(store, 1)[0].image_sha256
    with pytest.raises(StorageError, match="int32"):
        datasets.read_labels(store, item)
    item.shape[:] = [12, 14]
    item.image_sha256 = item.label_sha256
    with pytest.raises(StorageError, match="item 'item 0'"):
        datasets.read_image(store, item)
