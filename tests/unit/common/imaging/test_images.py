"""Uploaded images: every flavour that is accepted, and what is refused."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from support.image_files import COLOUR, LIMIT, PLANE, RNG, decode, png, tiff

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.images import decode_image, encode_tiff


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
