"""How items are read: all of them once, on all cores where they are small."""

from dataclasses import replace

import numpy as np
import pytest
from support.cellsparse_fake.config import resolve
from support.tiny_dataset import blobs, sparse

from cellsparse_common import datasets
from cellsparse_common.errors import StorageError
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.data import fed_image
from cellsparse_trainer.data import samples as module
from cellsparse_trainer.data.samples import Sample, StoredSamples, check_items, threads_for
from cellsparse_trainer.data.stacks import PlaneSamples

PLAN = resolve(trainer_pb2.TrainingSettings(), 1).plan


@pytest.fixture
def items(tmp_path):
    store = FolderStore(tmp_path / "store")
    made = []
    for number in range(6):
        image, label = blobs(seed=number)
        made.append(
            datasets.put_item(
                store, name=f"item{number}", split=common_pb2.SPLIT_TRAIN, image=image, label=sparse(label)
            )
        )
    return store, made


def test_checked_items_are_read_once(items, monkeypatch):
    store, made = items
    reads = []
    original = module.read_image
    monkeypatch.setattr(module, "read_image", lambda *given: reads.append(given) or original(*given))
    stored = StoredSamples(store, made, PLAN)
    check_items(stored, made)
    assert [sample.name for sample in stored] == [item.name for item in made]
    assert len(reads) == len(made)


def test_a_large_image_is_fed_as_a_small_one(monkeypatch):
    image = np.random.default_rng(0).integers(0, 5000, (90, 70, 3)).astype(np.uint16)
    for plan in (PLAN, replace(PLAN, channel=1), replace(PLAN, channels=(0, 2))):
        expected = module.as_fed(image, plan, stack=False)
        with monkeypatch.context() as patch:
            patch.setattr(module, "LARGE_PIXELS", 1)
            patch.setattr(fed_image, "_BAND_PIXELS", 1000)
            np.testing.assert_array_equal(module.as_fed(image, plan, stack=False), expected)


def test_an_item_that_is_not_what_the_manifest_says_is_named(items):
    store, made = items
    made[4].cells += 1
    with pytest.raises(StorageError, match="item4"):
        check_items(StoredSamples(store, made, PLAN), made)


def test_large_images_and_planes_of_stacks_are_worked_on_one_at_a_time(items):
    store, made = items
    stored = StoredSamples(store, made, PLAN)
    assert threads_for(stored) is None
    assert threads_for(list(stored)) is None
    made[0].shape[:] = [4096, 4096]
    assert threads_for(StoredSamples(store, made, PLAN)) == 1
    assert threads_for(PlaneSamples(stored, [])) == 1
    pixels = np.zeros((2049, 2049), np.float32)
    assert threads_for([Sample(name="a", image=pixels, label=pixels.astype(np.int32))]) == 1
