"""A dataset through the real sparsifier process and a folder store."""

import os
import shutil
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from support.limits import PATIENCE, QUICK
from support.sparsifier_server import running_sparsifier
from support.tiny_dataset import blobs

from cellsparse_common import datasets
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import common_pb2, dataset_pb2
from cellsparse_proto.v1 import sparsifier_pb2 as pb

CODES = grpc.StatusCode
SPLITS = [common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST]


def line(size: int = 64) -> np.ndarray:
    """A label image whose only cell is a diagonal line."""
    label = np.zeros((size, size), np.int32)
    label[np.arange(20), np.arange(20)] = 1
    return label


def write(root: Path, dataset_id: str, pictures: list[tuple[np.ndarray, np.ndarray]], splits=SPLITS):
    """Write a dataset of the given images and label images; item i is named item<i>."""
    store = FolderStore(root)
    items = [
        datasets.put_item(store, name=f"item{i}", split=splits[i % len(splits)], image=image, label=label)
        for i, (image, label) in enumerate(pictures)
    ]
    summary = datasets.summarize(items, dataset_id=dataset_id, name=dataset_id, created_at=None)
    datasets.write_manifest(store, dataset_pb2.DatasetManifest(dataset=summary, items=items))
    return datasets.read_manifest(store, dataset_id)


def brighter(by: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, label = blobs(seed=seed)
    return np.where(label > 0, image + by, image).astype(np.uint8), label


def asked(source="dense", target="sparse", name="Sparse", splits=(), **settings) -> pb.SparsifyDatasetRequest:
    values = {"mode": pb.SELECTION_MODE_MINMAX, "k": 1, "background": pb.BACKGROUND_RULE_SHIFTED, **settings}
    return pb.SparsifyDatasetRequest(
        dataset_id=source,
        target_dataset_id=target,
        target_name=name,
        settings=pb.SparsifySettings(**values),
        splits=splits,
    )


def contents(root: Path) -> dict[str, bytes]:
    return {key: FolderStore(root).get(key) for key in FolderStore(root).list("")}


def run(server, request) -> list[pb.SparsifyDatasetResponse]:
    return list(server.stub.SparsifyDataset(request, timeout=PATIENCE))


def refused(server, request) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        run(server, request)
    assert caught.value.details().endswith(".")
    return caught.value


@pytest.fixture
def root(tmp_path):
    """A store with a dataset `dense`: two images to train, one to validate, one to test."""
    write(tmp_path / "store", "dense", [brighter(15 * i, seed=i) for i in range(4)])
    return tmp_path / "store"


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """One server for all tests, and its store, which every test fills anew."""
    work = tmp_path_factory.mktemp("sparsifier")
    (work / "store").mkdir()
    with running_sparsifier(work / "store", work) as running:
        yield running, work / "store"


@pytest.fixture
def server(servers, root):
    running, place = servers
    shutil.rmtree(place)
    shutil.copytree(root, place)
    return running


@pytest.fixture
def store(servers, server):
    return FolderStore(servers[1])


def test_makes_a_sparse_dataset(server, store):
    source = datasets.read_manifest(store, "dense")
    progress = run(server, asked())
    assert [(p.items_done, p.items_total, p.done, p.cells_kept) for p in progress] == [
        (1, 3, False, 2),
        (2, 3, False, 4),
        (3, 3, False, 6),
        (3, 3, True, 6),
    ]
    made = datasets.read_manifest(store, "sparse")
    assert made.dataset.parent_id == "dense"
    assert made.dataset.name == "Sparse"
    assert made.dataset.created_at.seconds > 1_700_000_000
    assert made.dataset.sparsify == pb.SparsifySettings(
        mode=pb.SELECTION_MODE_MINMAX, k=1, background=pb.BACKGROUND_RULE_SHIFTED, background_distance=10
    )
    assert (made.dataset.items, made.dataset.cells, made.dataset.train_cells) == (4, 10, 4)
    labelled = 0
    for before, after in zip(source.items, made.items, strict=True):
        label = datasets.read_labels(store, after)
        assert len(np.unique(label[label > 0])) == after.cells
        assert (label >= 0).sum() == after.labelled_pixels
        assert (after.name, after.split, after.image_sha256) == (before.name, before.split, before.image_sha256)
        labelled += after.labelled_pixels
    assert made.dataset.labelled_pixels == labelled
    assert made.items[3] == source.items[3]
    assert datasets.read_manifest(store, "dense") == source


def test_only_the_asked_splits_change(server, store):
    run(server, asked(splits=[common_pb2.SPLIT_TEST]))
    source, made = (datasets.read_manifest(store, name).items for name in ("dense", "sparse"))
    assert [a == b for a, b in zip(source, made, strict=True)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("settings", "cells"),
    [
        ({"mode": pb.SELECTION_MODE_MIN, "total_cells": 3}, [3, 0, 0]),
        ({"mode": pb.SELECTION_MODE_MAX, "total_cells": 3}, [0, 0, 3]),
        ({"mode": pb.SELECTION_MODE_MINMAX, "total_cells": 3}, [2, 0, 1]),
        ({"mode": pb.SELECTION_MODE_MINMAX, "total_percent": 25}, [2, 0, 1]),
        ({"mode": pb.SELECTION_MODE_MINMAX, "total_percent": 100}, [4, 4, 4]),
        ({"mode": pb.SELECTION_MODE_MINMAX, "total_cells": 10**9}, [4, 4, 4]),
    ],
)
def test_totals_choose_over_all_items(servers, settings, cells, tmp_path):
    """Here every cell of an item is darker than every cell of the next."""
    running, place = servers
    shutil.rmtree(place)
    write(
        place, "dense", [((brighter(0, 0)[1] * 10 + 60 * i).astype(np.uint8), blobs()[1]) for i in range(3)], SPLITS[:1]
    )
    progress = run(running, asked(k=None, background=pb.BACKGROUND_RULE_ALL, **settings))
    assert [p.items_measured for p in progress] == [1, 2, 3, 3, 3, 3, 3]
    store = FolderStore(place)
    items = datasets.read_manifest(store, "sparse").items
    assert [item.cells for item in items] == cells
    for item in items:
        assert item.labelled_pixels == (64 * 64 if item.cells == 4 else item.labelled_pixels)
        assert (item.labelled_pixels == 0) == (item.cells == 0)
    assert len(progress[-1].warnings) == (0 in cells)


def test_random_depends_on_seed_and_name_only(servers):
    running, place = servers
    shutil.rmtree(place)
    pictures = [blobs(seed=i) for i in range(6)]
    write(place, "dense", pictures, SPLITS[:1])
    write(place, "first", pictures[:3], SPLITS[:1])
    for source, target, seed in [("dense", "a", 1), ("first", "b", 1), ("dense", "c", 2)]:
        run(running, asked(source, target, mode=pb.SELECTION_MODE_RANDOM, seed=seed))
    a, b, c = (
        [item.label_sha256 for item in datasets.read_manifest(FolderStore(place), target).items] for target in "abc"
    )
    assert a[:3] == b
    assert a != c


def test_an_equal_request_changes_nothing(server, servers):
    first = run(server, asked())[-1]
    before = contents(servers[1])
    assert run(server, asked())[-1] == first
    assert run(server, asked(background_distance=10, seed=5))[-1] == first
    assert contents(servers[1]) == before


@pytest.mark.parametrize(
    "other",
    [
        asked(k=2),
        asked(name="Other"),
        asked(target="dense"),
        asked(background=pb.BACKGROUND_RULE_ALL),
        asked(splits=[common_pb2.SPLIT_TRAIN]),
    ],
)
def test_another_request_for_the_same_target_is_refused(server, servers, other):
    run(server, asked())
    manifests = {key: data for key, data in contents(servers[1]).items() if key.startswith(keys.DATASETS)}
    assert refused(server, other).code() is CODES.ALREADY_EXISTS
    assert {key: data for key, data in contents(servers[1]).items() if key.startswith(keys.DATASETS)} == manifests


def test_an_item_without_candidates_does_not_stop_the_others(servers):
    running, place = servers
    shutil.rmtree(place)
    write(place, "dense", [blobs(), (blobs()[0], line()), blobs(seed=2)], SPLITS[:1])
    last = run(running, asked(background=pb.BACKGROUND_RULE_ALL))[-1]
    assert last.cells_kept == 4
    assert len(last.warnings) == 1
    assert "item1" in last.warnings[0]
    store = FolderStore(place)
    empty = datasets.read_manifest(store, "sparse").items[1]
    assert (empty.cells, empty.labelled_pixels) == (0, 0)
    assert (datasets.read_labels(store, empty) == -1).all()


def test_warnings_are_at_most_twenty(servers):
    running, place = servers
    shutil.rmtree(place)
    write(place, "dense", [blobs(), *[(blobs(seed=i)[0], line()) for i in range(30)]], SPLITS[:1])
    warnings = run(running, asked())[-1].warnings
    assert len(warnings) == 20
    assert "11 more" in warnings[-1]


@pytest.mark.parametrize("amount", [{"k": 1}, {"k": None, "total_cells": 5}, {"k": None, "total_percent": 5}])
def test_a_dataset_of_which_nothing_is_kept_is_refused(servers, amount):
    running, place = servers
    shutil.rmtree(place)
    write(place, "dense", [(blobs()[0], line()), (blobs()[0], line())], SPLITS[:1])
    before = contents(place)
    error = refused(running, asked(**amount))
    assert error.code() is CODES.INVALID_ARGUMENT
    assert "none of the 2 items" in error.details()
    assert contents(place) == before


BAD = {
    "an unknown dataset": (asked(source="nowhere"), CODES.NOT_FOUND, "nowhere"),
    "a path as source": (asked(source="../../x"), CODES.INVALID_ARGUMENT, "../../x"),
    "a path as target": (asked(target="../../x"), CODES.INVALID_ARGUMENT, "../../x"),
    "no source": (asked(source=""), CODES.INVALID_ARGUMENT, "dataset_id"),
    "a strange name": (asked(name="a/b"), CODES.INVALID_ARGUMENT, "a/b"),
    "an unknown mode": (asked(mode=12), CODES.INVALID_ARGUMENT, "12"),
    "k = 0": (asked(k=0), CODES.INVALID_ARGUMENT, "k is 0"),
    "101 %": (asked(k=None, total_percent=101), CODES.INVALID_ARGUMENT, "101"),
    "no cells": (asked(k=None, total_cells=0), CODES.INVALID_ARGUMENT, "total_cells is 0"),
    "an unknown split": (asked(splits=[8]), CODES.INVALID_ARGUMENT, "8"),
    "no split": (asked(splits=[0]), CODES.INVALID_ARGUMENT, "SPLIT_UNSPECIFIED"),
    "four splits": (asked(splits=[1, 2, 3, 1]), CODES.INVALID_ARGUMENT, "4 entries"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_answered_with_a_sentence_and_leave_no_trace(name, server, servers):
    request, code, words = BAD[name]
    before = contents(servers[1])
    error = refused(server, request)
    assert error.code() is code, error.details()
    assert words in error.details()
    assert contents(servers[1]) == before


def test_splits_without_an_item_are_named(servers):
    running, place = servers
    shutil.rmtree(place)
    write(place, "dense", [blobs()], [common_pb2.SPLIT_TEST])
    error = refused(running, asked())
    assert error.code() is CODES.INVALID_ARGUMENT
    assert "SPLIT_TRAIN or SPLIT_VAL" in error.details()


def test_images_above_the_limit_are_refused(root, tmp_path):
    with running_sparsifier(root, tmp_path, max_pixels="4000") as small:
        error = refused(small, asked())
    assert error.code() is CODES.RESOURCE_EXHAUSTED
    assert "64 x 64" in error.details()


def test_a_missing_image_is_a_fault_of_the_store(server, store):
    store.delete(keys.blob(datasets.read_manifest(store, "dense").items[1].image_sha256))
    error = refused(server, asked())
    assert error.code() is CODES.DATA_LOSS
    assert "item1" in error.details()
    assert not store.exists(keys.dataset_manifest("sparse"))


def test_a_store_that_cannot_be_written_is_unavailable(server, servers, store):
    """A file where the store makes its staging folder stops even root from writing."""
    staging = servers[1] / ".unfinished"
    shutil.rmtree(staging, ignore_errors=True)
    staging.touch()
    before = contents(servers[1])
    error = refused(server, asked())
    assert error.code() is CODES.UNAVAILABLE
    assert "Cannot write" in error.details()
    assert contents(servers[1]) == before


MANY = 2000
"""So many items are not done before a busy test has read the first answer and sent a signal."""


def many(place: Path, count: int) -> None:
    """Write a dataset of `count` items over ten different images; only names make items differ."""
    manifest = write(place, "dense", [blobs(size=256, seed=i) for i in range(10)], SPLITS[:1])
    items = list(manifest.items)
    del manifest.items[:]
    for i in range(count):
        manifest.items.add().CopyFrom(items[i % 10])
        manifest.items[-1].name = f"item{i}"
    datasets.write_manifest(FolderStore(place), manifest)


@pytest.mark.parametrize("amount", [{"k": 1}, {"k": None, "total_cells": 50}])
def test_a_caller_who_goes_away_ends_the_job(servers, amount):
    running, place = servers
    shutil.rmtree(place)
    many(place, 1000)
    ended = "SparsifyDataset CANCELLED"
    before = running.process.log.read_text().count(ended)
    stream = running.stub.SparsifyDataset(asked(mode=pb.SELECTION_MODE_RANDOM, **amount), timeout=PATIENCE)
    for _ in range(3):
        next(stream)
    stream.cancel()
    began = time.monotonic()
    while running.process.log.read_text().count(ended) == before:
        assert time.monotonic() - began < PATIENCE, "the job goes on although nobody listens"
        time.sleep(0.05)
    time.sleep(0.5)
    assert not FolderStore(place).exists(keys.dataset_manifest("sparse"))


def test_a_stopped_server_ends_its_jobs_at_once_and_the_next_one_finishes_them(tmp_path):
    place = tmp_path / "store"
    many(place, MANY)
    with running_sparsifier(place, tmp_path) as running:
        stream = running.stub.SparsifyDataset(asked(), timeout=PATIENCE)
        next(stream)
        os.kill(running.process.pid, signal.SIGTERM)
        with pytest.raises(grpc.RpcError, match="being stopped") as caught:
            list(stream)
        assert caught.value.code() is CODES.UNAVAILABLE
        assert running.process.wait(PATIENCE) == 0
    store = FolderStore(place)
    assert not store.exists(keys.dataset_manifest("sparse"))
    with running_sparsifier(place, tmp_path) as running:
        assert run(running, asked())[-1].done
    assert datasets.read_manifest(store, "sparse").dataset.cells == 2 * MANY


def test_a_killed_server_leaves_nothing_to_be_seen(tmp_path):
    place = tmp_path / "store"
    many(place, MANY)
    with running_sparsifier(place, tmp_path) as running:
        stream = running.stub.SparsifyDataset(asked(), timeout=PATIENCE)
        next(stream)
        os.kill(running.process.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is CODES.UNAVAILABLE
        assert time.monotonic() - began < QUICK
    assert not FolderStore(place).exists(keys.dataset_manifest("sparse"))
