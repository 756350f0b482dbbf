"""Stacks in the client: how arrays become files that say their axes, and what is sent with them."""

import numpy as np
import pytest

from cellsparse import Item
from cellsparse.cli.datasets import _spacing
from cellsparse.errors import InvalidArgument
from cellsparse.items import image_bytes, upload_messages
from cellsparse_common.faults import Faults
from cellsparse_common.imaging.images import decode_image
from cellsparse_proto.v1 import dataset_pb2

RNG = np.random.default_rng(5)


def read(data):
    return decode_image(data, max_pixels=100_000, stacks=True)


@pytest.mark.parametrize(
    ("shape", "given", "axes", "order"),
    [
        ((20, 30), "", "YX", (0, 1)),
        ((20, 30, 3), "", "YXC", (0, 1, 2)),
        ((3, 20, 30), "", "YXC", (1, 2, 0)),
        ((12, 20, 30), "", "ZYX", (0, 1, 2)),
        ((5, 20, 30), "ZYX", "ZYX", (0, 1, 2)),
        ((12, 20, 30, 2), "", "ZYXC", (0, 1, 2, 3)),
        ((12, 2, 20, 30), "ZCYX", "ZYXC", (0, 2, 3, 1)),
        ((2, 12, 20, 30), "CZYX", "ZYXC", (1, 2, 3, 0)),
    ],
)
def test_arrays_say_their_axes(shape, given, axes, order):
    array = RNG.integers(0, 250, shape).astype(np.uint8)
    image = read(image_bytes(array, given))
    assert image.axes == axes
    np.testing.assert_array_equal(image.array, array.transpose(order))


def test_one_plane_is_no_stack():
    array = RNG.integers(0, 250, (1, 20, 30)).astype(np.uint8)
    np.testing.assert_array_equal(read(image_bytes(array, "ZYX")).array, array[0])


@pytest.mark.parametrize(
    ("shape", "given", "words"),
    [((6, 20, 30), "", "6 channels"), ((20, 30), "ZYX", "cannot be ZYX"), ((2, 2, 2, 2, 2), "", "has 5 axes")],
)
def test_arrays_that_nobody_can_tell(shape, given, words):
    with pytest.raises(InvalidArgument, match=words):
        image_bytes(np.zeros(shape, np.uint8), given)


def test_what_is_sent_with_a_stack(tmp_path):
    image, label = RNG.integers(0, 250, (4, 9, 8)).astype(np.uint16), np.ones((4, 9, 8), np.int64)
    file = tmp_path / "a.tif"
    file.write_bytes(b"bytes")
    items = [
        Item(name="a", split="train", image=image, label=label, axes="ZYX", spacing=(2, 0.5, 0.5)),
        Item(name="b", split="train", image=file, label=label, axes="ZCYX"),
    ]
    sent = list(upload_messages("n", items, "instances", Faults()))
    headers = [message.file for message in sent if message.WhichOneof("part") == "file"]
    assert [(header.axes, list(header.spacing)) for header in headers] == [
        ("", [2, 0.5, 0.5]),  # the array became a file that says its axes
        ("", []),
        ("ZCYX", []),
        ("", []),
    ]
    assert headers[1].role == dataset_pb2.FILE_ROLE_LABEL
    chunks = [message.chunk for message in sent if message.WhichOneof("part") == "chunk"]
    assert read(chunks[0]).axes == read(chunks[1]).axes == "ZYX"


def test_spacing_on_the_command_line():
    assert _spacing("") == ()
    assert _spacing("2,0.5, 0.25") == (2, 0.5, 0.25)
    for text in ("2", "a,b,c", "0,1,1", "1,1,1,1", "nan,1,1"):
        with pytest.raises(InvalidArgument, match="spacing is"):
            _spacing(text)
