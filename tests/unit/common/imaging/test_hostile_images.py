"""Hostile image files: refused before anything is decoded, or read within bounds, whatever their bytes."""

import contextlib
import gc
import logging
import random
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_files import COLOUR, LIMIT, PLANE, decode, header_only, peak, png, tiff

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.images import decode_image


@pytest.mark.parametrize("size", [(10_000, 10_000), (2**31, 2**31), (2**32 - 1, 1_000_000)])
def test_a_huge_header_is_refused_before_decoding(size):
    error, mib, _ = peak(lambda: decode(header_only(*size)))
    assert isinstance(error, ResourceExhausted)
    assert f"{size[1]} x {size[0]}" in error.message
    assert "at most 67,108,864" in error.message
    assert mib < 5


def test_a_huge_png_header_is_refused_before_decoding():
    data = bytearray(png(COLOUR))
    data[16:24] = struct.pack(">II", 10_000, 10_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    error, mib, _ = peak(lambda: decode(bytes(data)))
    assert isinstance(error, ResourceExhausted)
    assert "10000 x 10000" in error.message
    assert mib < 5


@pytest.mark.parametrize(
    "data",
    [
        header_only(8000, 8000, count=50_000_000),
        header_only(8000, 8000, count=0),
        header_only(8000, 8000, compression=1, count=128_000_000),
        header_only(8000, 8000, compression=1, count=500),
    ],
)
def test_a_large_header_without_pixels_is_truncated(data):
    error, mib, _ = peak(lambda: decode(data))
    assert isinstance(error, InvalidArgument)
    assert "truncated" in error.message
    assert mib < 5


def test_the_limit_itself_is_allowed():
    assert decode(tiff(PLANE), max_pixels=PLANE.size).array.shape == PLANE.shape
    with pytest.raises(ResourceExhausted, match="37 x 53 pixels"):
        decode(tiff(PLANE), max_pixels=PLANE.size - 1)
    with pytest.raises(ResourceExhausted, match="37 x 53"):
        decode(png(PLANE), max_pixels=PLANE.size - 1)


# A small file that unpacks to much


def bomb(tags, *blocks, big=False):
    """A TIFF file of one directory; a value given as a list lies after it, and so do the blocks, at 'block N'."""
    form, offset, head = ("<HHQQ", "<Q", 16) if big else ("<HHII", "<I", 8)
    size = head + (8 if big else 2) + len(tags) * (20 if big else 12) + (8 if big else 4)
    tail, places = b"", []
    for block in blocks:
        places.append(size + len(tail))
        tail += block
    entries = b""
    for code, kind, values in tags:
        values = [places[value] if code in (273, 324) else value for value in values]
        packed = b"".join(struct.pack({3: "<H", 4: "<I", 16: "<Q"}[kind], value) for value in values)
        inline = struct.calcsize(offset)
        if len(packed) > inline:
            packed, tail = struct.pack(offset, size + len(tail)), tail + packed
        number = int.from_bytes(packed.ljust(inline, b"\0"), "little")
        entries += struct.pack(form, code, kind, len(values), number)
    start = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    return start + struct.pack("<Q" if big else "<H", len(tags)) + entries + bytes(inline) + tail


def strips(side, *, samples=4, bits=64, rows=256, compression=8, shared=True, big=False, tile=0):
    """Square images of zeros, as small as a compression makes them."""
    pieces = (side // tile) ** 2 if tile else side // rows
    raw = bytes((tile * tile if tile else rows * side) * samples * bits // 8)
    block = {8: zlib.compress, 50000: imagecodecs.zstd_encode, 5: imagecodecs.lzw_encode, 1: bytes}[compression](raw)
    places = [0] * pieces if shared else list(range(pieces))
    where = [(322, 3, [tile]), (323, 3, [tile]), (324, 4, places), (325, 4, [len(block)] * pieces)]
    if not tile:
        where = [(273, 4, places), (278, 4, [rows]), (279, 4, [len(block)] * pieces)]
    tags = [(256, 4, [side]), (257, 4, [side]), (258, 3, [bits] * samples), (259, 3, [compression]), (262, 3, [1])]
    tags += [(277, 3, [samples]), (339, 3, [3 if bits == 64 else 1] * samples), *where]
    tags += [(338, 3, [0] * (samples - 1))] if samples > 1 else []
    return bomb(sorted(tags), *[block] * (1 if shared else pieces), big=big)


def claims(code, value):
    """A good file of tiles in which one number is another."""
    data = bytearray(strips(256, samples=1, bits=16, tile=256))
    at = next(at for at in range(10, 10 + 12 * 13, 12) if struct.unpack_from("<H", data, at)[0] == code)
    struct.pack_into("<HI", data, at + 2, 4, 1)
    struct.pack_into("<I", data, at + 8, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("compression", "big", "tile", "shared"),
    [(8, False, 0, True), (8, True, 256, False), (5, False, 256, True), (50000, True, 0, False), (5, True, 0, False)],
)
def test_a_file_that_unpacks_to_too_much_is_refused_from_its_header(compression, big, tile, shared):
    """8192 x 8192 pixels are allowed, with 4 channels of float64 they are 2 GiB (case `tiff-bomb`)."""
    data = strips(8192, compression=compression, big=big, tile=tile, rows=64, shared=shared)
    error, mib, _ = peak(lambda: decode(data))
    assert isinstance(error, ResourceExhausted)
    assert "8192 x 8192 x 4 values of float64 = 2,147,483,648 bytes; allowed: at most 1,073,741,824" in error.message
    assert mib < 5


def test_strips_that_share_their_bytes_are_refused():
    error, mib, _ = peak(lambda: decode(strips(4096, samples=1, bits=16)))
    assert isinstance(error, InvalidArgument)
    assert "strips or tiles share their bytes" in error.message
    assert mib < 5
    assert decode(strips(512, samples=1, bits=16, shared=False)).array.shape == (512, 512)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (claims(277, 60_000), "60000"),
        (claims(322, 65_520), "tiles of"),
        (claims(257, 2**31), "2147483648"),
        (bomb([(330, 4, [8] * 65)]), "65 smaller copies"),
        (bomb([(330, 4, [8])]), "circle"),
        (bomb([(330, 16, [16, 16])], big=True), "circle"),
    ],
)
def test_headers_that_claim_too_much(data, words):
    error, mib, _ = peak(lambda: decode(data))
    assert isinstance(error, InvalidArgument | ResourceExhausted)
    assert words in error.message
    assert mib < 20


def test_directories_that_name_the_same_values_are_counted_once_each():
    """Twenty thousand directories of 60 bytes, each of which names the same million strip offsets."""
    count, numbers = 19_000, 1_000_000
    end = 8 + count * 18
    directories = b"".join(
        struct.pack("<HHHIII", 1, 273, 4, numbers, end, 8 + (at + 1) * 18 if at + 1 < count else 0)
        for at in range(count)
    )
    error, mib, seconds = peak(lambda: decode(struct.pack("<2sHI", b"II", 42, 8) + directories + bytes(4 * numbers)))
    assert isinstance(error, ResourceExhausted)
    assert "whose tags hold more than" in error.message
    assert mib < 20
    assert seconds < 20


def test_a_large_image_within_the_bytes_is_read():
    assert decode_image(tiff(PLANE), max_pixels=LIMIT, max_bytes=PLANE.nbytes).array.shape == PLANE.shape
    for data in (tiff(PLANE), png(PLANE), tiff(np.dstack([PLANE] * 4))):
        with pytest.raises(ResourceExhausted, match="bytes; allowed: at most 3,921 bytes"):
            decode_image(data, max_pixels=LIMIT, max_bytes=PLANE.nbytes - 1)


def test_a_chain_of_empty_directories_ends():
    count = 200_000
    chain = b"".join(struct.pack("<HI", 0, 8 + 6 * (index + 1)) for index in range(count))
    error, _, seconds = peak(lambda: decode(struct.pack("<2sHI", b"II", 42, 8) + chain))
    assert isinstance(error, InvalidArgument)
    assert seconds < 20


def test_a_circle_of_directories_ends():
    data = bytearray(header_only(10, 10))
    struct.pack_into("<I", data, 10 + 9 * 12, 8)
    with pytest.raises(InvalidArgument, match="circle"):
        decode(bytes(data))


def test_nothing_is_logged_and_other_logs_pass(caplog, capfd):
    broken = bytearray(tiff(PLANE, rowsperstrip=5))
    for cut in (60, 120, 400, len(broken) - 30):
        with pytest.raises(InvalidArgument):
            decode(bytes(broken[:cut]))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    logging.getLogger("tifffile").warning("still heard")
    assert [record.message for record in caplog.records] == ["still heard"]


# Fuzzing: whatever the bytes, a CellsparseError or an image, quickly and within the limit

VALID = [
    tiff(PLANE),
    tiff(PLANE, compression="zlib", predictor=True, tile=(16, 16)),
    tiff(PLANE, compression="lzw", rowsperstrip=4),
    tiff(PLANE, bigtiff=True, compression="zstd"),
    tiff(COLOUR, imagej=True),
    tiff(COLOUR, compression="jpeg"),
    tiff(COLOUR.transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"}),
    png(PLANE),
    png(COLOUR),
    png(COLOUR, "P"),
    png(np.dstack([COLOUR, COLOUR[:, :, 0]])),
    imagecodecs.png_encode(np.dstack([PLANE, PLANE, PLANE])),
]


def assert_safe(data):
    error, mib, seconds = peak(lambda: decode(data, max_pixels=100_000))
    if error is not None:
        assert error.message.endswith(".")
        assert len(error.message) < 600
    assert mib < 20
    assert seconds < 20


def test_broken_files_release_no_reference_too_many():
    """A decoder that does ends the process: None is not immortal in Python 3.11."""
    broken = [bytearray(data) for data in VALID]
    for data in broken:
        data[len(data) * 2 // 3] ^= 0xFF
    gc.collect()
    before = sys.getrefcount(None)
    for _ in range(100):
        for data in broken:
            with contextlib.suppress(InvalidArgument):
                decode(bytes(data))
    gc.collect()
    assert sys.getrefcount(None) > before - 60


@settings(max_examples=200)
@given(st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\x89PNG\r\n\x1a\n"]), st.binary(max_size=300))
def test_random_bytes(start, rest):
    assert_safe(start + rest)


@settings(max_examples=150)
@given(st.sampled_from(VALID), st.floats(0, 1))
def test_truncated_anywhere(data, at):
    assert_safe(data[: int(at * len(data))])


@settings(max_examples=400)
@given(st.sampled_from(VALID), st.integers(0, 2**32), st.integers(1, 8))
def test_random_edits_of_the_header(data, seed, edits):
    random_ = random.Random(seed)
    changed = bytearray(data)
    for _ in range(edits):
        near_start = random_.random() < 0.8
        at = random_.randrange(4, min(400, len(data)) if near_start else len(data))
        width = random_.choice([1, 1, 2, 4])
        changed[at : at + width] = random_.choice([b"\0", b"\xff", random_.randbytes(1), b"\x01"]) * width
    if data[:4] == b"\x89PNG":  # a valid checksum lets the edit through to the decoder
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    assert_safe(bytes(changed[: len(data)]))
