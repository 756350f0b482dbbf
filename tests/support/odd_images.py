"""Image files as odd as people's, and what every model must make of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.images import decode_image, encode_tiff, normalize, to_gray

DTYPES = ("u1", "u2", "u4", "i2", "i4", "f4", "f8")
SHAPES = st.one_of(
    st.sampled_from([(1, 1), (1, 40), (40, 1), (2, 2), (16, 16), (17, 33)]),
    st.tuples(st.integers(1, 48), st.integers(1, 48)),
)
FILLS = ("noise", "constant", "zero", "largest", "one pixel", "checkers", "nan", "inf")


@st.composite
def odd_images(draw: st.DrawFn) -> np.ndarray:
    """Images of any size from one pixel, any type, one to four channels."""
    shape = draw(SHAPES)
    channels = draw(st.sampled_from([None, None, 2, 3, 4]))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    fill = draw(st.sampled_from(FILLS))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    full = shape if channels is None else (*shape, channels)
    largest = 1e30 if dtype.kind == "f" else np.iinfo(dtype).max
    image = np.zeros(full, dtype)
    if fill == "noise":
        image = (rng.random(full) * min(largest, 60_000)).astype(dtype)
    elif fill in ("constant", "largest"):
        image[:] = 7 if fill == "constant" else largest
    elif fill == "one pixel":
        image[0, -1] = 1
    elif fill == "checkers":
        image[::2, ::2] = image[1::2, 1::2] = 100
    elif fill in ("nan", "inf") and dtype.kind == "f":
        image[-1, 0] = np.nan if fill == "nan" else np.inf
    return image


def check_predicts(predict: Callable[[np.ndarray], Any], image: np.ndarray) -> None:
    """Whatever the finite image, there is a label image of its size with cells 1 to n; others are refused."""
    finite = image.dtype.kind != "f" or bool(np.isfinite(image).all())
    if not finite:
        with pytest.raises(InvalidArgument, match="finite numbers only"):
            decode_image(encode_tiff(image), max_pixels=2**16)
        return
    pixels = decode_image(encode_tiff(image), max_pixels=2**16).array
    gray = normalize(to_gray(pixels), 1.0, 99.8)
    assert np.isfinite(gray).all()
    gray.setflags(write=False)
    label = predict(gray)
    assert label.shape == image.shape[:2]
    assert label.dtype == np.int32
    cells = np.unique(label[label != 0])
    np.testing.assert_array_equal(cells, np.arange(1, len(cells) + 1))
