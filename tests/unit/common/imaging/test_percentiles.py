"""Percentiles of a stream are those of the whole, to the last bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellsparse_common.imaging.percentiles import streamed_percentiles

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=200)
@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=FINITE | st.integers(-9, 9).map(float)),
    st.lists(st.floats(0, 100) | st.sampled_from([0.0, 1.0, 50.0, 99.8, 100.0]), min_size=2, max_size=2),
    st.integers(1, 20),
)
def test_as_numpy(values, which, length):
    parts = [values[at : at + length] for at in range(0, len(values), length)]
    assert streamed_percentiles(lambda: parts, which) == [float(value) for value in np.percentile(values, which)]
