"""Image files of more kinds: pyramids and JPEG."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.jpeg import read_header
from cellsparse_common.imaging.jpeg_orientation import jpeg_orientation
from cellsparse_common.imaging.labels import decode_labels

PIXELS = np.random.default_rng(0).integers(0, 255, (101, 203)).astype(np.uint8)


def jpeg(mode, **options):
    stream = io.BytesIO()
    Image.fromarray(np.stack([PIXELS] * 3, axis=-1)).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("marked", [True, False])
def test_the_largest_level_of_a_pyramid_is_taken(marked):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(PIXELS, subifds=1 if marked else 0)
        writer.write(PIXELS[::2, ::2], subfiletype=1 if marked else 0)
        if not marked:
            writer.write(PIXELS[::4, ::4])
    assert np.array_equal(decode_image(stream.getvalue(), max_pixels=10**6).array, PIXELS)


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"ome": True}], ids=str)
def test_levels_that_are_listed_and_chained(levels, options):
    """As tifffile writes more than one smaller copy: each leads to the next one, too."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, **options) as writer:
        writer.write(PIXELS, subifds=levels, tile=(32, 32))
        for level in range(1, levels + 1):
            writer.write(PIXELS[:: 2**level, :: 2**level], subfiletype=1, tile=(32, 32))
    assert np.array_equal(decode_image(stream.getvalue(), max_pixels=10**6).array, PIXELS)


@pytest.mark.parametrize("progressive", [True, False])
def test_jpeg_images_are_read(progressive):
    grey = decode_image(jpeg("L", progressive=progressive, quality=95), max_pixels=10**6)
    assert (grey.axes, grey.array.shape) == ("YX", PIXELS.shape)
    assert np.abs(grey.array.astype(int) - PIXELS).mean() < 5
    assert decode_image(jpeg("RGB", progressive=progressive), max_pixels=10**6).axes == "YXC"


def photo(orientation, exif=None):
    stream = io.BytesIO()
    tags = Image.Exif()
    tags[274] = orientation
    Image.fromarray(PIXELS).save(stream, "JPEG", exif=tags.tobytes() if exif is None else exif)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("colour", [False, True])
def test_a_photo_is_turned_as_viewers_show_it(orientation, colour):
    stream, tags = io.BytesIO(), Image.Exif()
    tags[274] = orientation
    Image.fromarray(np.dstack([PIXELS] * 3) if colour else PIXELS).save(stream, "JPEG", exif=tags.tobytes())
    found = decode_image(stream.getvalue(), max_pixels=10**6).array
    assert np.array_equal(found, np.asarray(ImageOps.exif_transpose(Image.open(stream))))
    assert read_header(stream.getvalue(), "image").shape == found.shape


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    assert decode_image(photo(orientation), max_pixels=10**6).array.shape == PIXELS.shape


def test_exif_data_that_are_cut_off_turn_nothing():
    whole = photo(6)
    end = whole.index(b"Exif") + 26  # the last byte of the value of the only entry
    assert [jpeg_orientation(whole[:length]) for length in range(end + 1)] == [1] * end + [6]
    tags = Image.Exif()
    tags[274] = 6
    for length in range(6, 26):
        assert jpeg_orientation(photo(6, exif=tags.tobytes()[:length])) == 1


def test_the_orientation_of_a_tiff_is_not_followed():
    """As in tifffile, which the tools read them with that labels come from."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, PIXELS, extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(decode_image(stream.getvalue(), max_pixels=10**6).array, PIXELS)
    assert np.array_equal(tifffile.imread(io.BytesIO(stream.getvalue())), PIXELS)


def test_labels_of_a_photo_as_it_is_stored_are_refused_with_the_reason():
    with pytest.raises(InvalidArgument, match=r"both must have the same size\. Labels are drawn on the image as"):
        decode_labels(encode_tiff(PIXELS.astype(np.int32)), shape=PIXELS.shape[::-1], max_pixels=10**6)


def test_jpeg_is_refused_where_it_must_be():
    with pytest.raises(InvalidArgument, match="JPEG file of 4 components; allowed: grey and RGB"):
        decode_image(jpeg("CMYK"), max_pixels=10**6)
    with pytest.raises(InvalidArgument, match="truncated"):
        decode_image(jpeg("L")[:100], max_pixels=10**6)
    with pytest.raises(ResourceExhausted, match="allowed: at most 1,000"):
        decode_image(jpeg("L"), max_pixels=1000)
    with pytest.raises(InvalidArgument, match="JPEG file, whose compression changes numbers"):
        decode_labels(jpeg("L"), shape=PIXELS.shape, max_pixels=10**6)


def test_parts_that_a_file_does_not_hold_are_refused():
    for data in (jpeg("L"), encode_tiff(PIXELS)):
        for part in ({}, {"series": 0}, {"time": 0}, {"z": 0}):  # the first of one
            assert decode_image(data, max_pixels=10**6, **part).array.shape == PIXELS.shape
        for name in ("series", "time", "z"):
            with pytest.raises(InvalidArgument, match=f"so that {name} 1 does not exist"):
                decode_image(data, max_pixels=10**6, **{name: 1})


@pytest.mark.parametrize(("mode", "words"), [("CMYK", "in CMYK colours"), ("LAB", r"in CIE L\*a\*b\* colours")])
def test_other_colours_than_rgb_are_not_taken_for_channels(mode, words):
    stream = io.BytesIO()
    Image.fromarray(np.dstack([PIXELS] * 3)).convert(mode if mode != "LAB" else "RGB").save(stream, "TIFF")
    data = bytearray(stream.getvalue())
    if mode == "LAB":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            data[file.pages[0].tags["PhotometricInterpretation"].offset + 8] = 8
    with pytest.raises(InvalidArgument, match=words):
        decode_image(bytes(data), max_pixels=10**6)


def test_raw_ycbcr_is_not_called_red_green_and_blue():
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.dstack([PIXELS] * 3), photometric="ycbcr", compression="zlib")
    with pytest.raises(InvalidArgument, match="in YCbCr colours; allowed: grey and RGB"):
        decode_image(stream.getvalue(), max_pixels=10**6)
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.dstack([PIXELS] * 3), photometric="rgb", compression="jpeg")
    assert decode_image(stream.getvalue(), max_pixels=10**6).channels == ("red", "green", "blue")


def test_a_plane_before_the_first_does_not_exist():
    with pytest.raises(InvalidArgument, match="z -1 does not exist"):
        decode_image(encode_tiff(np.stack([PIXELS] * 3), stack=True), max_pixels=10**6, z=-1)


def test_a_label_file_of_no_known_kind_is_not_offered_jpeg():
    with pytest.raises(
        InvalidArgument, match="not a TIFF or PNG file, nor any other that holds labels: it starts with"
    ):
        decode_labels(b"BM6000", shape=(5, 5), max_pixels=99)
