"""Stacks between dataset and backend: which axes, which planes, and what is refused."""

import numpy as np
import pytest

from cellsparse_common import datasets
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.samples import Sample, StoredSamples
from cellsparse_trainer.data.stacks import PlaneSamples, common_spacing, find_axes, labelled_planes, spread

TRAIN, VAL, TEST = common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST


def item(store, name, split=TRAIN, *, planes=6, spacing=()):
    label = np.full((planes, 8, 9), -1, np.int32)
    label[2, 1:4, 1:4] = 1
    label[4, 0] = 0
    image = np.arange(label.size, dtype=np.uint16).reshape(label.shape)
    return datasets.put_item(store, name=name, split=split, image=image, label=label, spacing=spacing)


def flat(store, name, split=TRAIN):
    label = np.ones((8, 9), np.int32)
    return datasets.put_item(store, name=name, split=split, image=label.astype(np.uint8), label=label)


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path)


def test_axes_of_a_dataset(store):
    stack, plane, test = item(store, "a"), flat(store, "b", VAL), flat(store, "c", TEST)
    assert find_axes(dataset_pb2.DatasetManifest(items=[stack, test])) == "ZYX"
    assert find_axes(dataset_pb2.DatasetManifest(items=[plane])) == "YX"
    with pytest.raises(InvalidArgument, match="'a' is a stack and item 'b' is 2D"):
        find_axes(dataset_pb2.DatasetManifest(items=[stack, plane]))


def test_spacing_is_known_or_not(store):
    first, second = item(store, "a", spacing=(2, 0.5, 0.5)), item(store, "b", spacing=(4, 0.5, 0.25))
    assert common_spacing([first, second]) == [3, 0.5, 0.375]
    assert common_spacing([first, item(store, "c")]) == []
    assert common_spacing([item(store, "c")]) == []


def test_planes_with_labels_become_samples(store):
    items = [item(store, "a", spacing=(2, 0.5, 0.25)), item(store, "b", planes=7)]
    planes = labelled_planes(store, items)
    assert planes == [(0, 2), (0, 4), (1, 2), (1, 4)]
    stacks = StoredSamples(store, items, plan(), cache_bytes=0)
    samples = PlaneSamples(stacks, planes, cache_bytes=0)
    assert len(samples) == len(list(samples)) == 4
    first = samples[0]
    assert (first.name, first.spacing) == ("a plane 2", (0.5, 0.25))
    np.testing.assert_array_equal(first.image, stacks[0].image[2])  # normalised over the whole stack
    np.testing.assert_array_equal(samples[-1].label, stacks[1].label[4])
    assert first.image.base is None
    assert [sample.name for sample in samples[1:3]] == ["a plane 4", "b plane 2"]


def test_planes_stay_in_memory_up_to_a_bound():
    reads = []

    class Stacks(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    image = np.zeros((4, 5, 5), np.float32)
    stacks = Stacks([Sample(name="s", image=image, label=image.astype(np.int32))])
    samples = PlaneSamples(stacks, [(0, z) for z in range(4)], cache_bytes=2 * 200)
    for z in (0, 1, 0, 1, 2, 0, 1):
        assert samples[z].name == f"s plane {z}"
    assert len(reads) == 5  # 0, 1, then 2 in place of 0, 0 in place of 1, 1 in place of 2


def test_few_planes_show_all_depths():
    planes = [(stack, z) for stack in range(2) for z in range(10)]
    assert spread(planes, 3) == [(0, 0), (1, 0), (1, 9)]
    assert spread(planes[:2], 3) == planes[:2]
    assert spread([], 3) == []


def plan():
    return Plan(
        steps=1,
        batch_size=1,
        crop_size=32,
        learning_rate=0.1,
        weight_decay=0,
        lower_percentile=0,
        upper_percentile=100,
        channel=None,
        validate_every=1,
        checkpoint_every=1,
        seed=0,
        device="cpu",
    )
