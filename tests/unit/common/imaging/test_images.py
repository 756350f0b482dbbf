"""Uploaded images: every flavour that is accepted, and every way to be refused before anything is decoded."""

import contextlib
import gc
import io
import logging
import random
import struct
import sys
import time
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.images import decode_image, encode_tiff, normalize, to_gray

LIMIT = 2**26
RNG = np.random.default_rng(7)
PLANE = RNG.integers(0, 60_000, (37, 53)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (37, 53, 3)).astype(np.uint8)


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(array, mode=None, **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Pillow.Image) else Pillow.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def decode(data, max_pixels=LIMIT):
    return decode_image(data, max_pixels=max_pixels)


def header_only(width, height, *, strips=1, count=100, compression=8, bits=16):
    """A TIFF of a few bytes that claims any size."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 200),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, count),
    ]
    body = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (body + b"\0" * 4).ljust(1000, b"\0")


def _jpeg_bomb():
    """A JPEG strip that claims 65,500 x 65,500 pixels inside a TIFF of 37 x 53."""
    data = bytearray(tiff(COLOUR, compression="jpeg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


# What is accepted


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "packbits"},
        {"compression": "lzma"},
        {"compression": "zstd"},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "bigtiff": True, "compression": "zlib"},
        {"tile": (16, 32)},
        {"tile": (64, 64), "compression": "zlib"},
        {"rowsperstrip": 5, "compression": "zlib"},
        {"imagej": True},
        {"ome": True},
        {"photometric": "minisblack", "metadata": None},
    ],
)
def test_tiff_flavours(options):
    image = decode(tiff(PLANE, **options))
    assert image.axes == "YX"
    assert image.array.dtype == np.uint16
    assert image.array.dtype.isnative
    assert np.array_equal(image.array, PLANE)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_types_are_kept(dtype):
    array = RNG.integers(0, 100, (9, 11)).astype(dtype)
    image = decode(tiff(array))
    assert image.array.dtype == np.dtype(dtype)
    assert np.array_equal(image.array, array)


def test_booleans_become_bytes():
    mask = PLANE > 30_000
    for data in (tiff(mask), png(mask)):
        image = decode(data)
        assert image.array.dtype == np.uint8
        assert np.array_equal(image.array, mask)


@pytest.mark.parametrize(
    "data",
    [
        tiff(COLOUR),
        tiff(COLOUR, photometric="rgb", tile=(16, 16), compression="zlib"),
        tiff(COLOUR.transpose(2, 0, 1)),
        tiff(COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        tiff(COLOUR.transpose(2, 0, 1), imagej=True, metadata={"axes": "CYX"}),
        tiff(COLOUR.transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"}),
        tiff(COLOUR, imagej=True),
        tiff(COLOUR, photometric="minisblack", planarconfig="contig"),
        tiff(COLOUR, photometric="minisblack"),
        png(COLOUR),
    ],
)
def test_channels_end_up_last(data):
    image = decode(data)
    assert image.axes == "YXC"
    assert np.array_equal(image.array, COLOUR)
    assert image.array.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels(channels):
    array = RNG.integers(0, 255, (21, 30, channels)).astype(np.uint8)
    for data in (tiff(array), tiff(array.transpose(2, 0, 1)), encode_tiff(array)):
        image = decode(data)
        assert image.axes == ("YX" if channels == 1 else "YXC")
        assert np.array_equal(image.array, array.squeeze())


@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("metadata", [{}, None])
def test_layers_without_a_name_are_not_guessed(layers, metadata):
    array = RNG.integers(0, 255, (layers, 21, 30)).astype(np.uint8)
    data = tiff(array, photometric="minisblack", metadata=metadata)
    with pytest.raises(InvalidArgument, match=rf"has {layers} layers of 21 x 30 .*Save it as an ImageJ or OME-TIFF"):
        decode_image(data, max_pixels=10_000)
    with pytest.raises(InvalidArgument, match=r"Give its axes: CYX \(--axes CYX\) .*, ZYX \(--axes ZYX\) for planes"):
        decode_image(data, max_pixels=10_000, stacks=True)
    for axes, shape in (("CYX", (21, 30, layers)), ("ZYX", (layers, 21, 30))):
        assert decode_image(data, max_pixels=10_000, stacks=True, axes=axes).array.shape == shape
    for named in ("CYX", "ZYX"):
        for kind in ("imagej", "ome"):
            image = decode_image(tiff(array, metadata={"axes": named}, **{kind: True}), max_pixels=10_000, stacks=True)
            assert image.axes == {"CYX": "YXC", "ZYX": "ZYX"}[named]


def test_jpeg_strips():
    smooth = np.dstack([np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)] * 3)
    buffer = io.BytesIO()
    Pillow.fromarray(smooth).save(buffer, "TIFF", compression="jpeg")
    striped = tiff(smooth, photometric="rgb", compression="jpeg")
    tiled = tiff(smooth, photometric="rgb", compression="jpeg", tile=(16, 32))
    for data in (striped, tiled, buffer.getvalue()):
        image = decode(data)
        assert image.array.shape == smooth.shape
        assert np.abs(image.array.astype(int) - smooth).max() < 12


def test_named_axes_beat_the_smallest_dimension():
    array = RNG.integers(0, 255, (3, 2, 40)).astype(np.uint8)  # three channels of 2 x 40 pixels
    image = decode(tiff(array, ome=True, metadata={"axes": "CYX"}))
    assert image.array.shape == (2, 40, 3)


def test_thin_images_keep_their_axes():
    for shape in ((1, 1), (1, 9), (9, 1)):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        for data in (tiff(array), png(array), encode_tiff(array)):
            assert np.array_equal(decode(data).array, array)


def test_png_kinds():
    gray = COLOUR[:, :, 0]
    rgba = np.dstack([COLOUR, gray])
    assert np.array_equal(decode(png(gray)).array, gray)
    assert np.array_equal(decode(png(rgba)).array, rgba)
    assert np.array_equal(decode(png(rgba, "LA")).array[:, :, 1], gray)
    assert decode(png(PLANE)).array.dtype == np.uint16
    assert np.array_equal(decode(png(PLANE)).array, PLANE)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_with_16_bits_of_colour_keeps_them(channels):
    y, x = np.mgrid[:40, :30]
    smooth = (np.sin(x / 9 + y / 7) * 30_000 + 30_000).astype(np.uint16)  # lets the encoder use every filter
    noisy = RNG.integers(0, 2**16, smooth.shape).astype(np.uint16)
    for parts in ([smooth, smooth // 2, y.astype(np.uint16), 257 * x.astype(np.uint16)], [noisy] * 4):
        deep = np.dstack(parts[:channels])
        image = decode(imagecodecs.png_encode(deep))
        assert image.array.dtype == np.uint16
        assert np.array_equal(image.array, deep)


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


def test_palette_png_gives_colours_or_indices():
    palette = Pillow.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), mode="P")
    palette.putpalette([value for index in range(12) for value in (index * 10, 5, 6)])
    data = png(palette)
    assert decode(data).array[1, 0].tolist() == [40, 5, 6]
    assert decode_image(data, max_pixels=LIMIT, labels=True).array.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert decode(png(palette, transparency=3)).array.shape == (3, 4, 4)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_with_few_bits_keeps_its_values(bits):
    """Pillow spreads 0 to 3 over 0 to 255; a label image needs the numbers as they are."""
    row = bytes([0, 0b00_01_10_11]) if bits == 2 else bytes([0, 0x01 if bits == 1 else 0x2F])
    width = 8 // bits
    ihdr = struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", ihdr), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    expected = {1: [0] * 7 + [1], 2: [0, 1, 2, 3], 4: [2, 15]}[bits]
    assert decode(data).array.tolist() == [expected]


# What is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a TIFF, PNG or JPEG file: it is empty"),
        (b"hello world", "not a TIFF, PNG or JPEG file: it starts with b'hello wo'"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, "truncated, broken or unusual JPEG file"),
        (b"II*\0", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (tiff(PLANE)[:-50], "truncated"),
        (tiff(PLANE, compression="zlib")[:-50], "truncated"),
        (tiff(PLANE, tile=(16, 16))[:2000], "truncated"),
        (png(PLANE)[:-500], "truncated"),
        (png(COLOUR)[:40], "truncated"),
        (imagecodecs.png_encode(np.dstack([PLANE] * 3))[:-500], "truncated"),
        (
            tiff(RNG.random((5, 30, 40)).astype("f4")),
            r"has 5 channels .*; allowed: 1 to 4 without a name",
        ),
        (
            tiff(RNG.random((30, 40, 5)).astype("f4")),
            r"has 5 channels .*; allowed: 1 to 4 without a name",
        ),
        (tiff(RNG.random((17, 30, 40)).astype("f4"), ome=True, metadata={"axes": "CYX"}), "has 17 channels"),
        (tiff(COLOUR, imagej=True, metadata={"axes": "ZYX"}), "3D stack of 37 planes"),
        (tiff(COLOUR.transpose(2, 0, 1), imagej=True, metadata={"axes": "ZYX"}), "3D stack of 3 planes"),
        (tiff(COLOUR.transpose(2, 0, 1), ome=True, metadata={"axes": "TYX"}), "time series of 3 planes"),
        (tiff(np.zeros((3, 4, 30, 40), np.uint8)), "4 axes"),
        (tiff(np.ones((8, 9), np.complex64)), "values of type complex64"),
        (tiff(np.array([[1.0, np.nan]], np.float32)), r"holds nan at \(0, 1\)"),
        (tiff(np.array([[1.0], [-np.inf]], np.float64)), r"holds -inf at \(1, 0\)"),
        (tiff(COLOUR, compression="webp"), "compression WEBP; allowed: none, LZW, JPEG, deflate"),
        (_jpeg_bomb(), "JPEG strip larger than its place"),
        (tiff(COLOUR, compression="jpeg").replace(b"\xff\xd8\xff", b"\xff\xd8\0"), "no baseline or progressive JPEG"),
    ],
)
def test_refused(data, words):
    with pytest.raises(InvalidArgument, match=words) as caught:
        decode(data)
    assert caught.value.violations[0][0] == "image"


def test_several_images_in_one_file():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(PLANE)
        writer.write(COLOUR)
    with pytest.raises(InvalidArgument, match="holds 2 images"):
        decode(buffer.getvalue())


def test_animated_png():
    frames = [Pillow.fromarray(COLOUR), Pillow.fromarray(255 - COLOUR)]
    with pytest.raises(InvalidArgument, match="animated"):
        decode(png(frames[0], save_all=True, append_images=frames[1:]))


def test_an_ome_header_reads_no_other_file(tmp_path):
    """OME files may spread over several files; an upload must not make the server read its disk."""
    secret = tmp_path / "secret.ome.tif"
    tifffile.imwrite(secret, np.full((37, 53), 42, np.uint16))
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint16" SizeX="53" SizeY="37" SizeC="1" '
        'SizeZ="1" SizeT="1"><Channel ID="C:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1">'
        f'<UUID FileName="{secret}">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    try:
        array = decode(tiff(PLANE, description=xml, metadata=None)).array
    except InvalidArgument:
        return
    assert not (array == 42).all()


def peak(call):
    """(error raised, peak MiB that numpy and Python asked for, seconds of processor time)."""
    tracemalloc.start()
    start = time.process_time()
    try:
        call()
        error = None
    except CellsparseError as caught:
        error = caught
    seconds = time.process_time() - start
    _, bytes_ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return error, bytes_ / 2**20, seconds


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


# Writing, grey values


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
        elements=st.integers(0, 200),
    )
)
@settings(max_examples=50)
def test_encode_is_deterministic_and_lossless(array):
    data = encode_tiff(array)
    assert data == encode_tiff(array.copy(order="F"))
    image = decode(data)
    assert image.array.dtype == array.dtype
    assert np.array_equal(image.array, array)


def test_encode_keeps_channels_and_names_no_software():
    array = np.dstack([PLANE, PLANE // 2])
    assert np.array_equal(decode(encode_tiff(array)).array, array)
    with tifffile.TiffFile(io.BytesIO(encode_tiff(COLOUR))) as file:
        names = {tag.name for tag in file.pages[0].tags}
    assert not names & {"Software", "DateTime", "ImageDescription"}


def test_to_gray():
    assert to_gray(COLOUR).dtype == np.float32
    assert np.allclose(to_gray(COLOUR), COLOUR.mean(axis=2))
    assert np.array_equal(to_gray(COLOUR, 1), COLOUR[:, :, 1])
    assert np.array_equal(to_gray(PLANE), PLANE)
    assert np.array_equal(to_gray(PLANE, 0), PLANE)
    for image, channel in ((COLOUR, 3), (PLANE, 1), (COLOUR, -1)):
        with pytest.raises(InvalidArgument, match=f"channel {channel} does not exist"):
            to_gray(image, channel)


@settings(max_examples=100)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.sampled_from([(0.0, 100.0), (1.0, 99.8), (50.0, 50.0)]),
)
def test_normalize_is_always_finite_and_in_range(gray, percentiles):
    result = normalize(gray, *percentiles)
    assert result.dtype == np.float32
    assert result.shape == gray.shape
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


def test_normalize_values():
    gray = np.array([[0, 5, 10]], np.float32)
    assert normalize(gray, 0, 100).tolist() == [[0.0, 0.5, 1.0]]
    assert normalize(np.full((3, 3), 7, np.float32), 0, 100).tolist() == np.zeros((3, 3)).tolist()
    wide = np.arange(1001, dtype=np.float32)[None]
    assert normalize(wide, 10, 90)[0, [0, 100, 500, 900, 1000]].tolist() == [0, 0, 0.5, 1, 1]
