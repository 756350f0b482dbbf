import numpy as np
import pytest

from cellsparse_gateway.qupath.segmenting import cells_warning


@pytest.mark.parametrize(("cells", "warned"), [(0, False), (3, False), (200, False), (201, True), (253, True)])
def test_many_cells_are_warned_of(cells, warned):
    labels = np.arange(cells + 2, dtype=np.uint8)[None]
    assert (f"{cells} annotations" in cells_warning(labels)) == warned


def test_without_training_nothing_is_warned_of():
    assert cells_warning(None) == ""
