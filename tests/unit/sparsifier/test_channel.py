"""Intensity from one channel: other cells are kept than by the mean of all."""

import numpy as np
import pytest

from cellsparse_common import datasets
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2, sparsifier_pb2
from cellsparse_sparsifier.items import Reader
from cellsparse_sparsifier.requests import read_settings

LABEL = np.zeros((12, 24), np.int32)
LABEL[2:6, 2:6], LABEL[2:6, 10:14], LABEL[2:6, 18:22] = 1, 2, 3
IMAGE = np.stack([LABEL * 10, (4 - LABEL) * 50 * (LABEL > 0)], axis=-1).astype(np.uint16)


@pytest.fixture
def item(tmp_path):
    store = FolderStore(tmp_path)
    about = {"name": "a", "split": common_pb2.SPLIT_TRAIN, "label": LABEL, "channels": ("GFP", "DAPI")}
    return Reader(store=store, max_pixels=10_000, check=lambda: None), datasets.put_item(store, image=IMAGE, **about)


@pytest.mark.parametrize(
    ("channel", "means"),
    [("", [80, 60, 40]), ("0", [10, 20, 30]), ("gfp", [10, 20, 30]), ("DAPI", [150, 100, 50])],
)
def test_the_named_channel_gives_the_intensity(item, channel, means):
    reader, one = item
    np.testing.assert_array_equal(reader.measure(one, channel).means, means)


def test_a_channel_that_is_not_there_is_named(item):
    reader, one = item
    with pytest.raises(InvalidArgument, match=r"Item 'a': .*RFP does not exist. .*0 \(GFP\), 1 \(DAPI\)"):
        reader.measure(one, "RFP")


def test_the_request_names_it():
    message = sparsifier_pb2.SparsifySettings(mode=1, k=1, background=1, channel=" DAPI ")
    assert read_settings(message).channel == "DAPI"
