"""Stacks in suggestions: which planes are looked at, and how a model of stacks predicts one of them."""

import numpy as np
import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_orchestrator.projects.suggestion_sample import Part, Source, sample
from cellsparse_orchestrator.projects.suggestions import TURNS, _as_it_is, _Work
from cellsparse_orchestrator.projects.tiling import Extent

SHAPE = (12, 10)


def stack(planes, name="a"):
    return Source(
        id=name, sha256="", extent=Extent(height=SHAPE[0], width=SHAPE[1], planes=planes), cells=0, labelled=False
    )


@pytest.mark.parametrize(("planes", "count"), [(1, 1), (2, 2), (3, 3), (50, 3)])
def test_planes_are_spread_over_a_stack(planes, count):
    for seed in range(20):
        parts = sample([stack(planes)], most=1, pixels=10**6, window=100, seed=seed)
        assert len(parts) == count
        assert len({part.name for part in parts}) == count
        if planes == 1:
            assert parts[0].plane is None
        else:
            assert [part.plane * count // planes for part in parts] == pytest.approx(range(count), abs=1)
            assert [part.plane for part in parts] == sorted({part.plane for part in parts})


def test_an_image_counts_once_and_pixels_are_bounded():
    sources = [stack(9, name) for name in "abcd"]
    assert len({part.source.id for part in sample(sources, most=2, pixels=10**6, window=100, seed=0)}) == 2
    assert len(sample(sources, most=4, pixels=4 * SHAPE[0] * SHAPE[1], window=100, seed=0)) == 4


class Volume:
    """Reads a stack in which each plane has its own value, brighter from left to right."""

    def __init__(self, planes):
        self.array = np.arange(planes)[:, None, None] * 100 + np.indices(SHAPE)[1] + np.indices(SHAPE)[0] * 10

    def pixels(self, part):
        return self.array[part.plane]

    def slab(self, part, most_voxels):
        count = min(len(self.array), most_voxels // (SHAPE[0] * SHAPE[1]))
        first = min(max(0, part.plane - count // 2), len(self.array) - count)
        return self.array[first : first + count], part.plane - first


def part_of(planes, plane):
    return Part(source=stack(planes), rows=slice(0, SHAPE[0]), columns=slice(0, SHAPE[1]), plane=plane)


def test_a_model_of_stacks_gets_the_planes_around_and_every_turn_is_turned_back():
    asked = []

    def predict(model_id, pixels, is_stack):
        asked.append((is_stack, pixels.shape))
        if not is_stack:
            raise InvalidArgument("It takes stacks.", "image")
        return pixels.astype(np.int32)  # each pixel is its own cell

    reader = Volume(9)
    work = _Work(reader, predict, 5 * SHAPE[0] * SHAPE[1])
    turns = [work._cells(part_of(9, 8), "m", turn, back) for turn, back in ((_as_it_is, _as_it_is), *TURNS)]
    for found in turns:
        np.testing.assert_array_equal(found, reader.array[8])
    assert [is_stack for is_stack, _ in asked] == [False] + [True] * 5  # it is asked for a plane once
    assert asked[1] == (True, (5, *SHAPE))


def test_a_model_that_refuses_both_says_why_it_refused_the_plane():
    def predict(model_id, pixels, is_stack):
        raise InvalidArgument("No stacks." if is_stack else "It has no channel GFP.", "image")

    work = _Work(Volume(9), predict, 10**6)
    with pytest.raises(InvalidArgument, match="no channel GFP"):
        work.predictions(part_of(9, 4), ["m"])
