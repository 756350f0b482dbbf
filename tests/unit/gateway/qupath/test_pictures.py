import base64
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cellsparse_gateway.qupath.pictures import NO_FOREGROUND, NO_PIXELS, Picture, count_cells, read_labels, read_picture
from cellsparse_gateway.qupath.refusals import Refusal

LIMIT = 2**20


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def raw_png(array: np.ndarray, colour: int) -> bytes:
    """A PNG file of 16-bit channels, which Pillow does not write."""
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array.astype(">u2")).view(np.uint8).reshape(height, -1)
    data = zlib.compress(np.column_stack([np.zeros(height, np.uint8), rows]).tobytes())
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def refused(*args) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_labels(*args, LIMIT) if isinstance(args[1], Picture) else read_picture(*args)
    return caught.value


@pytest.fixture
def pixels():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2), (5, 7, 3)])
def test_eight_bits_arrive_as_they_are(pixels, shape):
    array = pixels.integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(read_picture(b64(png(array)), LIMIT).array, array)


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (2, 4), (4, 6)])
def test_sixteen_bits_of_every_channel_arrive_as_they_are(pixels, channels, colour):
    array = pixels.integers(0, 2**16, (5, 7, channels), dtype=np.uint16)
    picture = read_picture(b64(raw_png(array, colour)), LIMIT)
    assert picture.array.dtype == np.uint16
    assert np.array_equal(picture.array, array[..., 0] if channels == 1 else array)
    assert picture.axes == ("YX" if channels == 1 else "YXC")


def test_alpha_is_transparency_only_where_it_is_opaque_everywhere(pixels):
    array = pixels.integers(0, 255, (5, 7, 4), dtype=np.uint8)
    assert read_picture(b64(png(array)), LIMIT).array.shape == (5, 7, 4)
    array[..., 3] = 255
    assert np.array_equal(read_picture(b64(png(array)), LIMIT).array, array[..., :3])


def test_opaque_alpha_of_sixteen_bits_is_a_channel(pixels):
    array = pixels.integers(0, 2**16, (5, 7, 4), dtype=np.uint16)
    array[..., 3] = 65535
    assert read_picture(b64(raw_png(array, 6)), LIMIT).array.shape == (5, 7, 4)


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_pixels_are_explained(text):
    refusal = refused(text, LIMIT)
    assert (refusal.status, refusal.sentence) == (422, NO_PIXELS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%%%", "The b64img is not base64 text."),
        ("é", "The b64img is not base64 text."),
        (b64(b"GIF89a"), "The b64img is not a TIFF, PNG or JPEG file: it starts with b'GIF89a'."),
        (b64(png(np.zeros((9, 9), np.uint8))[:40]), "The b64img is a truncated or broken PNG file"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(text, said):
    refusal = refused(text, LIMIT)
    assert refusal.status == 422
    assert said in refusal.sentence


def test_an_image_above_the_limit_is_too_large():
    assert refused(b64(png(np.zeros((9, 9), np.uint8))), 80).status == 413


def test_base64_may_have_line_breaks(pixels):
    array = pixels.integers(0, 256, (50, 70), dtype=np.uint8)
    assert np.array_equal(read_picture(base64.encodebytes(png(array)).decode(), LIMIT).array, array)


def test_pixels_decide_which_image_it_is():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    same = Picture(image).fingerprint()
    assert Picture(image.copy()).fingerprint() == same
    others = (image.reshape(4, 3), image.astype(np.uint16), image + 1)
    assert same not in {Picture(other).fingerprint() for other in others}


def palette(labels: np.ndarray) -> bytes:
    """A file as QuPath writes it: indices are labels, colours are whatever the classes have."""
    image = Image.fromarray(labels, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("encode", [palette, png])
def test_labels_are_indices_whatever_their_colours(encode):
    labels = np.array([[0, 1, 2], [3, 3, 200]], np.uint8)
    read = read_labels(b64(encode(labels)), Picture(np.zeros((2, 3), np.uint8)), LIMIT)
    assert np.array_equal(read, labels)
    assert count_cells(read) == 3


@pytest.mark.parametrize("text", [None, ""])
def test_training_without_labels_is_refused(text):
    assert "b64lbl is empty" in refused(text, Picture(np.zeros((2, 3)))).sentence


def test_labels_without_a_cell_name_the_class():
    labels = np.array([[0, 1, 1], [0, 0, 0]], np.uint8)
    refusal = refused(b64(palette(labels)), Picture(np.zeros((2, 3), np.uint8)))
    assert (refusal.status, refusal.sentence) == (422, NO_FOREGROUND)
    assert "Foreground (spelled so)" in NO_FOREGROUND


def test_labels_of_another_size_are_refused():
    labels = np.full((2, 3), 2, np.uint8)
    refusal = refused(b64(palette(labels)), Picture(np.zeros((3, 3), np.uint8)))
    assert "2 x 3" in refusal.sentence
    assert "3 x 3" in refusal.sentence


def test_colours_are_no_labels():
    refusal = refused(b64(png(np.full((2, 3, 3), 2, np.uint8))), Picture(np.zeros((2, 3), np.uint8)))
    assert "3 channels" in refusal.sentence


def test_numbers_that_ran_out_are_refused():
    labels = np.full((2, 3), 255, np.uint8)
    assert "254 or more" in refused(b64(palette(labels)), Picture(np.zeros((2, 3), np.uint8))).sentence
