"""The pure parts of projects: where tiles lie, pyramids, label numbers, tables of cells."""

import contextlib
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument, OutOfRange
from cellsparse_orchestrator.projects import label_stats
from cellsparse_orchestrator.projects.images import numbered
from cellsparse_orchestrator.projects.label_numbers import KEEP, deflate, from_labels, inflate, to_labels
from cellsparse_orchestrator.projects.pyramid import Pyramid, halve, percentiles
from cellsparse_orchestrator.projects.tiling import TILE, Extent, Place, covering


@pytest.mark.parametrize(
    ("height", "width", "levels"), [(1, 1, 1), (512, 512, 1), (513, 512, 2), (1025, 1, 3), (10_000, 10_000, 6)]
)
def test_levels_halve_until_one_tile_is_left(height, width, levels):
    extent = Extent(height=height, width=width)
    assert extent.levels == levels
    assert max(extent.at(levels - 1)) <= TILE


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3))
def test_the_tiles_of_each_level_cover_it_once(height, width, planes):
    extent = Extent(height=height, width=width, planes=planes)
    for level in range(extent.levels):
        area = sum(np.prod(extent.tile_shape(level, place)) for place in extent.places(level))
        assert area == planes * np.prod(extent.at(level))


def test_a_place_outside_is_refused_with_what_there_is():
    extent = Extent(height=513, width=1025)
    for level, place, sentence in [
        (2, Place(plane=0, y=0, x=1), "allowed: x from 0 to 0"),
        (3, Place(plane=0, y=0, x=0), "no level 3; allowed: 0 to 2"),
        (0, Place(plane=1, y=0, x=0), "no plane 1; allowed: 0 to 0"),
        (0, Place(plane=0, y=2, x=0), "y from 0 to 1"),
    ]:
        with pytest.raises(OutOfRange, match=sentence):
            extent.tile_shape(level, place)


def test_a_rectangle_touches_the_tiles_that_it_lies_on():
    assert len(list(covering(0, 0, 0, 512, 512))) == 1
    assert [(place.y, place.x) for place in covering(0, 511, 512, 2, 512)] == [(0, 1), (1, 1)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_label_numbers_travel_unchanged(height, width, seed):
    numbers = np.random.default_rng(seed).integers(0, 2**32, (height, width), dtype=np.uint32)
    assert (inflate(deflate(numbers), height, width) == numbers).all()


@given(st.binary(max_size=200), st.integers(1, 4), st.integers(1, 4))
def test_any_bytes_are_label_numbers_or_refused(data, height, width):
    for each in (data, zlib.compress(data)):
        with contextlib.suppress(InvalidArgument):
            assert inflate(each, height, width).shape == (height, width)


def test_labels_and_numbers_differ_by_one():
    labels = np.array([[-1, 0, 1, 2**31 - 2]], np.int32)
    assert (to_labels(from_labels(labels)) == labels).all()
    assert from_labels(labels).tolist() == [[0, 1, 2, 2**31 - 1]]


@pytest.mark.parametrize("spread", [1, 10**8])
def test_tables_of_cells_are_kept_as_if_measured_anew(spread):
    random = np.random.default_rng(0)
    tile = random.integers(0, 6, (30, 40)).astype(np.uint32)
    tile[tile > 1] *= spread
    table = label_stats.measure(tile)
    for label, area, left, top, right, bottom in table.tolist():
        ys, xs = (tile == label).nonzero()
        assert (area, left, top, right, bottom) == (len(xs), xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert table[:, 0].tolist() == np.unique(tile[tile > 1]).tolist()
    changed = tile.copy()
    changed[5:9, 3:30], changed[20:, :10] = 77, 0
    involved = [*np.unique(tile).tolist(), 77]
    assert (label_stats.remeasure(table, changed, involved) == label_stats.measure(changed)).all()
    assert (label_stats.unpack(label_stats.pack(table)) == table).all()
    assert len(label_stats.remeasure(table, np.zeros_like(tile), involved)) == 0


def test_a_cell_over_tiles_and_planes_is_one():
    table = np.array([[5, 10, 500, 3, 512, 4]], np.uint32)
    right = np.array([[5, 7, 0, 2, 3, 9], [6, 1, 0, 0, 1, 1]], np.uint32)
    tiles = [(Place(plane=1, y=0, x=0), table), (Place(plane=2, y=0, x=1), right)]
    first, second = label_stats.list_cells(tiles)
    assert (first.label, first.area, first.x, first.y, first.width, first.height) == (5, 17, 500, 2, 15, 7)
    assert (first.plane, first.planes, second.label, second.x) == (1, 2, 6, 512)
    assert label_stats.areas([table, right]) == {5: 17, 6: 1}
    assert label_stats.list_cells([]) == []
    assert not first.HasField("score")
    scores = label_stats.unpack_scores(label_stats.pack_scores(np.arange(6, dtype=np.float32) / 8))
    assert [cell.score for cell in label_stats.list_cells(tiles, scores)] == [4 / 8, 5 / 8]


def test_diameters_are_those_of_circles_and_spheres():
    assert label_stats.diameter([], stack=False) == 0
    assert label_stats.diameter([np.pi * 25] * 3, stack=False) == pytest.approx(10)
    assert label_stats.diameter([np.pi * 125 * 4 / 3], stack=True) == pytest.approx(10)


def test_halving_takes_means_and_keeps_the_edge():
    pixels = np.array([[0, 2, 10], [4, 6, 20], [255, 255, 255]], np.uint8)
    assert halve(pixels).tolist() == [[3, 15], [255, 255]]
    large = np.random.default_rng(0).integers(0, 2**16, (2050, 31), dtype=np.uint16)
    padded = np.pad(large, ((0, 0), (0, 1)), mode="edge").astype(float)
    assert np.abs(halve(large) - padded.reshape(1025, 2, 16, 2).mean((1, 3))).max() <= 0.5


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.float32, np.float64])
def test_other_pixels_are_scaled_for_viewing(dtype):
    limits = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    array = np.array([[limits.min, 0, limits.max]], dtype)
    pyramid = Pyramid(array=array, stack=False)
    (tile,) = pyramid.tiles()
    assert tile.pixels[0, [0, 2]].tolist() == [0, 65535]
    assert tile.pixels.dtype == np.uint16


def test_channels_have_tiles_and_contrast_of_their_own():
    array = np.zeros((600, 4, 2), np.uint8)
    array[..., 1] = 7
    pyramid = Pyramid(array=array, stack=False)
    tiles = list(pyramid.tiles())
    assert (pyramid.channels, len(tiles)) == (2, 2 * (2 + 1))
    assert pyramid.contrast == [(0, 1), (7, 8)]
    assert np.frombuffer(zlib.decompress(tiles[-1].data()), np.uint8).tolist() == [7] * 600


def test_contrast_leaves_out_the_extremes():
    counts = np.ones(10_000, np.int64)
    assert percentiles(counts) == (9, 9989)


def test_names_get_a_number_before_the_ending():
    assert numbered("a.tif", 2) == "a (2).tif"
    assert numbered("a.ome.tif", 3) == "a.ome (3).tif"
    assert numbered("no ending", 2) == "no ending (2)"
    assert numbered(".hidden", 2) == ".hidden (2)"


def test_keep_is_the_largest_number():
    assert np.uint32(KEEP) == np.iinfo(np.uint32).max
