"""One image through the real sparsifier process: good ones, and every wrong one with its sentence."""

import io
import struct
import threading
import zlib

import grpc
import numpy as np
import pytest
import tifffile
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from support.limits import PATIENCE
from support.sparsifier_server import running_sparsifier
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import decode_image
from cellsparse_proto.v1 import sparsifier_pb2 as pb

IMAGE, LABEL = blobs()
CODES = grpc.StatusCode


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size whose pixels are one short, valid stream."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def tiff_header(width: int, height: int) -> bytes:
    """A TIFF of any size with ten bytes of pixels."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 10)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHI", b"II", 42, 18) + b"\0" * 10 + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def request(image: bytes | None = None, label: bytes | None = None, **settings) -> pb.SparsifyRequest:
    values = {"mode": pb.SELECTION_MODE_MINMAX, "k": 1, "background": pb.BACKGROUND_RULE_SHIFTED, **settings}
    return pb.SparsifyRequest(
        image=tiff(IMAGE) if image is None else image,
        label=tiff(LABEL) if label is None else label,
        settings=pb.SparsifySettings(**values),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    with running_sparsifier(store, tmp_path_factory.mktemp("sparsifier")) as running:
        yield running


def sparsify(server, asked):
    answer = server.stub.Sparsify(asked, timeout=PATIENCE)
    return decode_image(answer.label, max_pixels=2**20).array, answer


def test_answers_the_sparse_labels(server):
    sparse, answer = sparsify(server, request(background_distance=3))
    assert list(answer.kept) == [1, 4]
    assert answer.candidates == 4
    assert not answer.warnings
    assert sparse.dtype == np.int32
    expected = np.where(np.isin(LABEL, [1, 4]), LABEL, -1)
    y, x = np.nonzero(expected > 0)
    y, x = np.clip(y - 3, 0, None), np.clip(x - 3, 0, None)
    free = LABEL[y, x] == 0
    expected[y[free], x[free]] = 0
    np.testing.assert_array_equal(sparse, expected)


def test_the_distance_is_ten_where_none_is_given(server):
    assert (sparsify(server, request())[0] == sparsify(server, request(background_distance=10))[0]).all()


@pytest.mark.parametrize("mode", pb.SelectionMode.values()[1:])
@pytest.mark.parametrize("background", pb.BackgroundRule.values()[1:])
@pytest.mark.parametrize("amount", [{"k": 1}, {"total_cells": 2}, {"total_percent": 50}])
def test_every_mode_background_and_amount(server, mode, background, amount):
    asked = request(mode=mode, background=background)
    asked.settings.ClearField("k")
    asked.settings.MergeFrom(pb.SparsifySettings(**amount))
    sparse, answer = sparsify(server, asked)
    assert len(answer.kept) == 2
    assert set(np.unique(sparse[sparse > 0])) == set(answer.kept)
    assert (sparse == 0).any() == (background != pb.BACKGROUND_RULE_NONE)


def test_colour_images_work(server):
    colour = np.stack([IMAGE, IMAGE // 2, 255 - IMAGE // 3], axis=2)
    assert list(sparsify(server, request(tiff(colour, photometric="rgb")))[1].kept) == [1, 4]


def test_a_stack_is_one_image(server):
    """Its planes are not sparsified one by one, and few planes are no channels where the axes are given."""
    image, label = np.stack([IMAGE] * 3), np.stack([LABEL] * 3)
    label[0, 0, 0] = 9  # flat
    asked = request(tiff(image), tiff(label), background_distance=3)
    asked.axes = "ZYX"
    answer = server.stub.Sparsify(asked, timeout=PATIENCE)
    sparse = decode_image(answer.label, max_pixels=2**20, stacks=True)
    assert (sparse.axes, list(answer.kept), answer.candidates) == ("ZYX", [1, 4], 4)
    np.testing.assert_array_equal(sparse.array, np.stack([sparsify(server, request(background_distance=3))[0]] * 3))
    asked.axes = ""
    with pytest.raises(grpc.RpcError, match="label has 3 channels") as refused:
        server.stub.Sparsify(asked, timeout=PATIENCE)
    assert refused.value.code() == CODES.INVALID_ARGUMENT


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64, np.float32])
def test_unsigned_labels_are_signed_before_they_are_masked(server, dtype):
    """With numpy 2, -1 written into a uint16 array silently becomes 65535."""
    sparse, _ = sparsify(server, request(label=tiff(LABEL.astype(dtype))))
    np.testing.assert_array_equal(sparse, sparsify(server, request())[0])


def test_the_largest_label_costs_no_memory(server):
    before = server.peak_memory_mib()
    label = np.where(LABEL == 4, 2**31 - 1, LABEL).astype(np.int32)
    assert list(sparsify(server, request(label=tiff(label)))[1].kept) == [1, 2**31 - 1]
    assert server.peak_memory_mib() - before < 50


def test_pixels_without_a_label_stay_so(server):
    label = LABEL.copy()
    label[:, 40:] = -1
    sparse, answer = sparsify(server, request(label=tiff(label), background=pb.BACKGROUND_RULE_ALL, k=99))
    assert (sparse[:, 40:] == -1).all()
    np.testing.assert_array_equal(sparse, label)
    assert "asked for" in answer.warnings[0]


def test_no_candidate_is_a_warning(server):
    label = np.zeros_like(LABEL)
    label[np.arange(20), np.arange(20)] = 1
    sparse, answer = sparsify(server, request(label=tiff(label), background=pb.BACKGROUND_RULE_ALL))
    assert (sparse == -1).all()
    assert (answer.candidates, list(answer.kept)) == (0, [])
    assert answer.warnings[0].startswith("No cell was kept")


FLOATS = LABEL + 0.5
BAD = {
    "label of another size": (request(label=tiff(LABEL[:50])), CODES.INVALID_ARGUMENT, "50 x 64"),
    "float labels": (request(label=tiff(FLOATS.astype(np.float32))), CODES.INVALID_ARGUMENT, "0.5"),
    "no label at all": (request(label=tiff(np.zeros_like(LABEL))), CODES.INVALID_ARGUMENT, "no labelled cell"),
    "an empty file": (request(label=b""), CODES.INVALID_ARGUMENT, "label"),
    "a cut file": (request(tiff(IMAGE, compression="zlib")[:700]), CODES.INVALID_ARGUMENT, "image"),
    "a cut label file": (request(label=tiff(LABEL)[:-5000]), CODES.INVALID_ARGUMENT, "label"),
    "five channels": (request(tiff(np.zeros((64, 64, 5), np.uint8))), CODES.INVALID_ARGUMENT, "5 channels"),
    "a stack with labels of one plane": (
        request(tiff(np.zeros((9, 64, 64), np.uint8), metadata={"axes": "ZYX"})),
        CODES.INVALID_ARGUMENT,
        "is 64 x 64 pixels, its image 9 x 64 x 64",
    ),
    "3D labels": (
        request(label=tiff(np.ones((9, 64, 64), np.uint8), metadata={"axes": "ZYX"})),
        CODES.INVALID_ARGUMENT,
        "3D",
    ),
    "no image file": (request(b"hello, world"), CODES.INVALID_ARGUMENT, "hello"),
    "no number": (request(tiff(np.full((64, 64), np.nan, np.float32))), CODES.INVALID_ARGUMENT, "nan"),
    "a label below -1": (request(label=tiff(LABEL - 7)), CODES.INVALID_ARGUMENT, "-7"),
    "an unknown mode": (request(mode=9), CODES.INVALID_ARGUMENT, "9"),
    "no mode": (request(mode=0), CODES.INVALID_ARGUMENT, "SELECTION_MODE_MIN"),
    "an unknown background": (request(background=-1), CODES.INVALID_ARGUMENT, "-1"),
    "k = 0": (request(k=0), CODES.INVALID_ARGUMENT, "k is 0"),
    "k = 65536": (request(k=65536), CODES.INVALID_ARGUMENT, "65536"),
    "no amount": (
        pb.SparsifyRequest(image=tiff(IMAGE), label=tiff(LABEL), settings={"mode": 1, "background": 1}),
        CODES.INVALID_ARGUMENT,
        "total_percent",
    ),
    "0 %": (request(k=None, total_percent=0), CODES.INVALID_ARGUMENT, "total_percent is 0"),
    "nan %": (request(k=None, total_percent=float("nan")), CODES.INVALID_ARGUMENT, "nan"),
    "no distance": (request(background_distance=0), CODES.INVALID_ARGUMENT, "background_distance is 0"),
    "no settings": (pb.SparsifyRequest(image=tiff(IMAGE), label=tiff(LABEL)), CODES.INVALID_ARGUMENT, "settings"),
    "144 megapixels in a small TIFF": (request(tiff_header(12_000, 12_000)), CODES.RESOURCE_EXHAUSTED, "144,000,000"),
    "144 megapixels in a small PNG": (request(png_header(12_000, 12_000)), CODES.RESOURCE_EXHAUSTED, "144,000,000"),
    "144 megapixels of labels": (request(label=tiff_header(12_000, 12_000)), CODES.RESOURCE_EXHAUSTED, "144,000,000"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_with_a_sentence(name, server, store):
    asked, code, words = BAD[name]
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Sparsify(asked, timeout=PATIENCE)
    error = caught.value
    assert error.code() is code, error.details()
    assert words in error.details()
    assert error.details().endswith(".")
    assert not list(store.iterdir())
    assert server.peak_memory_mib() < 1024


def test_all_violations_come_at_once_with_their_fields(server):
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Sparsify(request(image=b"", k=0, mode=77), timeout=PATIENCE)
    bad = error_details_pb2.BadRequest()
    assert rpc_status.from_call(caught.value).details[0].Unpack(bad)
    assert {entry.field for entry in bad.field_violations} >= {"image", "settings.k", "settings.mode"}


def test_the_file_limit_is_a_setting(store, tmp_path):
    with (
        running_sparsifier(store, tmp_path, max_file_mib="1") as small,
        pytest.raises(grpc.RpcError, match="at most 1 MiB") as caught,
    ):
        small.stub.Sparsify(request(tiff(np.zeros((1100, 1100), np.uint8))), timeout=PATIENCE)
    assert caught.value.code() is CODES.RESOURCE_EXHAUSTED


def test_callers_at_the_same_time_get_their_own_answers(server):
    answers: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        mode = pb.SELECTION_MODE_MIN if number % 2 else pb.SELECTION_MODE_MAX
        answers[number] = list(sparsify(server, request(mode=mode))[1].kept)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == {number: [1, 2] if number % 2 else [3, 4] for number in range(8)}
