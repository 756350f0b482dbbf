"""Sparsifying stacks: the plain definition, voxel by voxel; never plane by plane, as the reference code has it."""

from pathlib import Path

import numpy as np
import pytest
import stardist
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import regionprops

from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.cells import measure_cells
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify

SIDES = st.integers(2, 6)
REAL = Path(stardist.__file__).parent / "data" / "images"


@st.composite
def stacks(draw):
    shape = draw(st.tuples(SIDES, SIDES, SIDES))
    numbers = st.sampled_from([-1, 0, 0, 1, 2, 3, 700])
    label = draw(hnp.arrays(np.int32, shape, elements=numbers, fill=st.just(0)))
    for _ in range(draw(st.integers(0, 4))):
        start = [draw(st.integers(0, length - 1)) for length in shape]
        label[tuple(slice(at, at + draw(st.integers(1, 3))) for at in start)] = draw(numbers)
    channels = draw(st.sampled_from([(), (2,)]))
    return draw(hnp.arrays(np.uint8, (*shape, *channels), elements=st.integers(0, 3))), label


def has_volume(places: np.ndarray) -> bool:
    """Whether the smallest principal axis of some voxels is above zero: exact, as a determinant of whole numbers."""
    n = len(places)
    a, b, c = (axis.astype(object) for axis in places.T)
    m = [[n * (p * q).sum() - p.sum() * q.sum() for q in (a, b, c)] for p in (a, b, c)]
    return bool(
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )


def expected_background(label, kept, rule, distance, step):
    zero = np.argwhere(label == 0)
    cells = np.argwhere(np.isin(label, kept))
    if rule is Background.NONE or not len(cells):
        return np.zeros((0, 3), int)
    if rule is Background.ALL:
        return zero
    if rule is Background.SHIFTED:
        moved = np.maximum(cells - [0, distance, distance], 0)
        return moved[label[tuple(moved.T)] == 0]
    squared = (((zero[:, None] - cells) * [step, 1, 1]) ** 2).sum(axis=2)
    return zero[(squared <= distance**2).any(axis=1)]


@given(
    stacks(),
    st.sampled_from(list(Background)),
    st.integers(1, 5),
    st.sampled_from([(), (1.0, 1.0, 1.0), (2.0, 0.5, 0.5), (0.25, 1.0, 1.0)]),
)
@settings(max_examples=60)
def test_equals_the_plain_definition_voxel_for_voxel(stack, rule, distance, spacing):
    image, label = stack
    sparse = sparsify(
        image, label, Settings(mode=Mode.MINMAX, k=1, background=rule, distance=distance), spacing=spacing
    )
    numbers = [int(n) for n in np.unique(label[label > 0]) if has_volume(np.argwhere(label == n))]
    means = {n: image[label == n].mean(dtype=np.float64) for n in numbers}
    kept = {*sorted(numbers, key=lambda n: (means[n], n))[:1], *sorted(numbers, key=lambda n: (-means[n], n))[:1]}
    kept = set(numbers) if len(numbers) < 2 else kept
    assert sparse.candidates == len(numbers)
    assert sparse.kept.tolist() == sorted(kept)
    expected = np.where(np.isin(label, sorted(kept)), label, -1)
    step = spacing[0] / spacing[2] if spacing else 1.0
    expected[tuple(expected_background(label, sorted(kept), rule, distance, step).T)] = 0
    np.testing.assert_array_equal(sparse.label, expected)


def test_candidates_and_means_equal_regionprops_on_real_nuclei():
    image, label = (tifffile.imread(REAL / name) for name in ("img3d.tif", "mask3d.tif"))
    cells = measure_cells(image, label.astype(np.int32))
    regions = regionprops(label, image)
    assert cells.numbers.tolist() == [region.label for region in regions]
    assert cells.sizes.tolist() == [region.area for region in regions]
    np.testing.assert_allclose(cells.means, [region.intensity_mean for region in regions], rtol=1e-12)
    assert cells.candidate.tolist() == [region.axis_minor_length > 0 for region in regions]


def test_k_counts_cells_of_the_stack_not_of_its_planes():
    """The reference reads a stack as planes: there, k = 1 keeps two cells in each of them."""
    label = np.zeros((6, 12, 40), np.int32)
    for cell in range(5):
        label[1:5, 3:8, 8 * cell + 1 : 8 * cell + 6] = cell + 1
    image = (label * 10).astype(np.uint8)
    sparse = sparsify(image, label, Settings(mode=Mode.MINMAX, k=1, background=Background.SHIFTED, distance=3))
    assert sparse.kept.tolist() == [1, 5]
    np.testing.assert_array_equal(sparse.label > 0, (label == 1) | (label == 5))
    assert ((sparse.label == 0).any(axis=(1, 2)) == (label > 0).any(axis=(1, 2))).all()


def test_flat_cells_are_no_candidates():
    label = np.zeros((5, 9, 9), np.int32)
    label[2, 1:5, 1:5] = 1  # in one plane
    label[1:4, 6, 1:5] = 2  # in a plane that stands
    for at in range(4):
        label[at, 5:8, at + 4] = 3  # in a slanted plane
    label[0:2, 0:2, 7:9] = 4
    cells = measure_cells(label.astype(np.uint8), label)
    assert dict(zip(cells.numbers.tolist(), cells.candidate.tolist(), strict=True)) == {1: 0, 2: 0, 3: 0, 4: 1}


@pytest.mark.parametrize(("image", "label"), [((4, 9, 9, 2, 1), (4, 9, 9)), ((9, 9, 4), (4, 9, 9))])
def test_other_sizes_are_refused(image, label):
    with pytest.raises(ValueError, match="do not match"):
        measure_cells(np.zeros(image), np.ones(label, int))
