"""Written images, and grey values of images."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.image_files import COLOUR, PLANE, decode

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.images import encode_tiff, normalize, to_gray


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
