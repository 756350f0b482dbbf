"""The fast sparsifier against scikit-image on real nuclei, and on the lines where scikit-image is not exact."""

import itertools

import numpy as np
import pytest
import tifffile
from skimage.measure import regionprops_table
from support.paths import DSB2018
from unit.sparsifier import reference

from cellsparse_sparsifier import background
from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.cells import measure_cells
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify

needs_data = pytest.mark.skipif(not DSB2018.is_dir(), reason=f"the real nuclei are not at {DSB2018}")


def pictures(split: str, every: int = 1):
    for path in sorted((DSB2018 / split / "images").glob("*.tif"))[::every]:
        label = tifffile.imread(path.parents[1] / "masks" / path.name).astype(np.int32)
        yield path.stem, tifffile.imread(path), label


@needs_data
def test_candidates_and_means_equal_regionprops_on_every_real_cell():
    cells = 0
    for name, image, label in pictures("val"):
        measured = measure_cells(image, label)
        table = regionprops_table(label, image, properties=["label", "area", "axis_minor_length", "intensity_mean"])
        np.testing.assert_array_equal(measured.numbers, table["label"], name)
        np.testing.assert_array_equal(measured.sizes, table["area"], name)
        np.testing.assert_array_equal(measured.means, table["intensity_mean"], name)
        np.testing.assert_array_equal(measured.candidate, table["axis_minor_length"] > 0, name)
        cells += measured.numbers.size
    assert cells == 2_542


@needs_data
def test_sparse_labels_equal_the_plain_definition():
    for name, image, label in pictures("val", every=20):
        mean = reference.means(image, label, reference.candidates_regionprops(label))
        for mode, rule, k in itertools.product(Mode, Background, (1, 4)):
            settings = Settings(mode=mode, background=rule, distance=5, seed=k, k=k)
            expected, kept = reference.sparsify(
                image, label, mode=mode.name, count=2 * k, rule=rule.name, distance=5, seed=k, mean=mean
            )
            sparse = sparsify(image, label, settings)
            np.testing.assert_array_equal(sparse.label, expected, f"{name} {settings}")
            assert sparse.kept.tolist() == kept


@needs_data
def test_channels_count_equally():
    name, image, label = next(pictures("val"))
    settings = Settings(mode=Mode.MINMAX, background=Background.SHIFTED, k=2)
    colour = np.stack([image, 2 * image.astype(np.int32), np.roll(image, 7).astype(np.int32)], axis=2)
    grey = sparsify(colour.sum(axis=2), label, settings)
    np.testing.assert_array_equal(sparsify(colour, label, settings).label, grey.label, name)


@needs_data
@pytest.mark.parametrize("distance", [1, 2, 10, 37])
def test_both_ways_to_the_ring_agree(distance, monkeypatch):
    for name, image, label in pictures("val", every=16):
        settings = Settings(mode=Mode.MIN, background=Background.RING, distance=distance, k=2)
        sparse = sparsify(image, label, settings).label
        monkeypatch.setattr(background, "_grow_runs", None)
        monkeypatch.setattr(background, "GROW_SHARE", 0.0)
        by_distance_transform = sparsify(image, label, settings).label
        monkeypatch.undo()
        np.testing.assert_array_equal(sparse, by_distance_transform, name)


def test_regionprops_mistakes_some_lines_for_cells():
    """Why the rule is decided in integers: if scikit-image ever becomes exact here, this test says so."""
    label = np.zeros((60, 60), np.int32)
    label[np.arange(5), 3 * np.arange(5)] = 1
    minor = regionprops_table(label, properties=["axis_minor_length"])["axis_minor_length"][0]
    assert 0 < minor < 1e-6
    assert not measure_cells(label, label).candidate.any()
