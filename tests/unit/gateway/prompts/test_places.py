import numpy as np
import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.places import Asked, check, clipped, cut_off, extent, grid_window, moved, placed
from cellsparse_gateway.prompts.tiles import SIDE, TileCache, _parts
from cellsparse_gateway.prompts.types import Box, Point, Proposal
from cellsparse_proto.v1 import project_pb2

IMAGE = project_pb2.ProjectImage(height=1000, width=1301, planes=2, channels=2, levels=3)


def test_what_shows_the_cell_has_an_extent():
    asked = Asked(points=(Point(x=10, y=20), Point(x=900, y=900, positive=False)), scribble=((5, 40), (30, 25)))
    assert extent(asked, 7) == (-2, 13, 37, 47)
    assert extent(Asked(box=Box(left=1, top=2, right=3, bottom=4)), 1) == (0, 1, 4, 5)


@pytest.mark.parametrize(
    ("area", "level", "rows", "columns"),
    [
        ((-5, -5, 20.5, 30), 0, (0, 30), (0, 21)),
        ((1290, 990, 1400, 1100), 0, (990, 1000), (1290, 1301)),
        ((1290, 990, 1400, 1100), 2, (247, 250), (322, 326)),
        ((5000, 5000, 6000, 6000), 1, (499, 500), (650, 651)),
        ((3, 3, 3, 3), 0, (3, 4), (3, 4)),
    ],
)
def test_a_window_is_inside_its_level_and_never_empty(area, level, rows, columns):
    found = clipped(area, IMAGE, level)
    assert [(side.start, side.stop) for side in found] == [rows, columns]


def test_there_and_back_again():
    asked = Asked(points=(Point(x=410, y=210, positive=True),), box=Box(left=400, top=200, right=440, bottom=240))
    rows, columns = slice(40, 80), slice(90, 130)
    prompt = moved(asked, np.zeros((40, 40)), 2, rows, columns, 24.0)
    assert (prompt.points[0].x, prompt.points[0].y, prompt.diameter) == (12.5, 12.5, 6)
    assert (prompt.box.left, prompt.box.top, prompt.box.right, prompt.box.bottom) == (10, 10, 20, 20)
    back = placed(Proposal(mask=np.ones((10, 10), bool), x=10, y=10, quality=1.0), 2, rows, columns, IMAGE)
    assert (back.x, back.y, back.mask.shape) == (400, 200, (40, 40))


def test_a_mask_of_a_coarse_level_ends_at_the_images_edge():
    found = placed(
        Proposal(mask=np.ones((5, 6), bool), x=0, y=0, quality=1.0), 2, slice(245, 250), slice(320, 326), IMAGE
    )
    assert (found.x + found.mask.shape[1], found.y + found.mask.shape[0]) == (1301, 1000)


def test_an_instance_that_the_window_cuts():
    whole = slice(0, 100), slice(0, 100)
    inner = slice(100, 200), slice(100, 200)
    at_edge = Proposal(mask=np.ones((5, 5), bool), x=0, y=50, quality=1.0)
    assert not cut_off(at_edge, *whole, IMAGE)
    assert cut_off(at_edge, *inner, IMAGE)
    assert cut_off(Proposal(mask=np.ones((5, 5), bool), x=50, y=95, quality=1.0), *inner, IMAGE)
    assert not cut_off(Proposal(mask=np.ones((5, 5), bool), x=50, y=50, quality=1.0), *inner, IMAGE)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Asked(points=(Point(x=1, y=1),), plane=2), "no plane 2; allowed: 0 to 1"),
        (Asked(points=(Point(x=1, y=1),), channel=2), "no channel 2; allowed: 0 to 1"),
        (Asked(points=(Point(x=1, y=1000),)), "outside the image of 1301 x 1000 pixels"),
        (Asked(), "shows no cell"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(asked, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        check(asked, IMAGE)


def test_tiles_cover_a_window_once():
    covered = np.zeros((700, 600), int)
    for x, y, there, here in _parts(slice(400, 1100), slice(500, 1100)):
        covered[there] += 1
        assert [side.stop - side.start for side in here] == [side.stop - side.start for side in there]
        assert here[0].start + y * SIDE == 400 + there[0].start
        assert here[1].start + x * SIDE == 500 + there[1].start
    assert (covered == 1).all()


def test_the_cache_keeps_the_newest_tiles_within_its_limit():
    cache, fetched = TileCache(limit=3000), []

    def get(number):
        def fetch():
            fetched.append(number)
            return np.zeros(1000, np.uint8)

        return cache.get(("im", 0, number, 0, 0, 0), fetch)

    for number in (0, 1, 2, 0, 3, 0, 1):
        assert get(number).size == 1000
    assert fetched == [0, 1, 2, 3, 1]


def click(x, y):
    return Asked(points=(Point(x=x, y=y),))


def test_neighbouring_prompts_share_a_window_of_the_grid():
    image = project_pb2.ProjectImage(height=5000, width=5000, levels=5)
    for diameter, side in ((20, 256), (64, 256), (65, 512), (200, 1024), (256, 1024)):
        windows = {str(grid_window(click(2040 + dx, 3060 + dy), image, diameter)) for dx in (0, 9) for dy in (0, 9)}
        assert len(windows) == 1
        level, rows, columns = grid_window(click(2000, 3000), image, diameter)
        assert (level, rows.stop - rows.start, columns.stop - columns.start) == (0, side, side)
        assert rows.start % (side // 2) == columns.start % (side // 2) == 0
    assert grid_window(click(2000, 3000), image, 300)[0] == 1


@pytest.mark.parametrize("size", [(60, 70), (300, 5000), (1111, 1024)])
@pytest.mark.parametrize("diameter", [8, 90, 400])
def test_a_window_of_the_grid_holds_what_shows_the_cell(size, diameter):
    image = project_pb2.ProjectImage(height=size[0], width=size[1], levels=4)
    rng = np.random.default_rng(0)
    for y, x in rng.uniform(0, size, (200, 2)):
        level, rows, columns = grid_window(click(x, y), image, diameter)
        reach = diameter / 2
        for low, high, length, window in (
            (y - reach, y + reach, size[0], rows),
            (x - reach, x + reach, size[1], columns),
        ):
            assert window.start * 2**level <= max(0, low)
            assert window.stop * 2**level >= min(length, high)
            assert window.stop <= -(-length // 2**level)
