"""The sparsifier's memory does not grow with the number of images."""

from pathlib import Path

import numpy as np
import pytest
from support.limits import PATIENCE
from support.sparsifier_server import running_sparsifier

from cellsparse_common import datasets
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2
from cellsparse_proto.v1 import sparsifier_pb2 as pb

MANY, FEW = 2000, 20


def write_different_images(root: Path) -> None:
    """Two datasets, `many` and `few`, of images of 64 x 64 with nine cells, no two of them equal."""
    store = FolderStore(root)
    label = np.kron(np.arange(1, 10).reshape(3, 3), np.pad(np.ones((14, 14), np.int32), 3)).astype(np.int32)
    label = np.pad(label, 2)
    items = []
    for number in range(MANY):
        image = np.random.default_rng(number).integers(0, 255, label.shape, np.uint8)
        moved = np.roll(label, number % 5, axis=0)
        items.append(
            datasets.put_item(store, name=f"item{number}", split=common_pb2.SPLIT_TRAIN, image=image, label=moved)
        )
    for name, count in (("many", MANY), ("few", FEW)):
        summary = datasets.summarize(items[:count], dataset_id=name, name=name, created_at=None)
        datasets.write_manifest(store, dataset_pb2.DatasetManifest(dataset=summary, items=items[:count]))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("memory") / "store"
    write_different_images(root)
    return root


@pytest.mark.parametrize("amount", [{"k": 1}, {"total_cells": 5000}], ids=["k", "total"])
def test_peak_memory_with_2000_images_is_that_with_20(store, tmp_path, amount):
    peaks = {}
    for source, count in (("few", FEW), ("many", MANY)):
        work = tmp_path / source
        work.mkdir()
        with running_sparsifier(store, work) as running:
            request = pb.SparsifyDatasetRequest(
                dataset_id=source,
                target_dataset_id=f"{source}-{next(iter(amount)).replace('_', '-')}",
                target_name="sparse",
                settings=pb.SparsifySettings(
                    mode=pb.SELECTION_MODE_MINMAX, background=pb.BACKGROUND_RULE_RING, **amount
                ),
            )
            for progress in running.stub.SparsifyDataset(request, timeout=PATIENCE):
                last = progress
            assert last.done
            assert last.items_done == count
            peaks[source] = running.peak_memory_mib()
    print(f"peak memory: {peaks['few']:.0f} MiB with {FEW} images, {peaks['many']:.0f} MiB with {MANY}")
    assert peaks["many"] - peaks["few"] < 100
