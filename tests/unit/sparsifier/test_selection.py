"""Choosing over a dataset, and what makes two requests the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import sparsifier_pb2 as pb
from cellsparse_sparsifier.requests import read_settings, settled
from cellsparse_sparsifier.selection import Mode, budget, item_seed, select, select_over

ITEMS = st.lists(st.lists(st.sampled_from([0.0, 1.0, 1.5, 7.0]), max_size=6), max_size=6)


@given(ITEMS, st.sampled_from(list(Mode)), st.integers(1, 12), st.integers(0, 9))
def test_over_items_is_the_choice_among_all_candidates_in_their_order(items, mode, count, seed):
    parts = select_over([np.array(part) for part in items], mode=mode, count=count, seed=seed)
    assert len(parts) == len(items)
    flat = [(i, j) for i, part in enumerate(items) for j in range(len(part))]
    together = select(np.array([items[i][j] for i, j in flat]), mode=mode, count=count, seed=seed)
    assert [(i, int(j)) for i, part in enumerate(parts) for j in part] == [flat[n] for n in together]


@pytest.mark.parametrize(
    ("candidates", "percent", "cells"),
    [(10, 25, 3), (10, 24, 2), (10, 0.001, 1), (10, 100, 10), (0, 50, 1), (3, 50, 2)],
)
def test_percentages_round_to_the_nearest_cell_but_keep_one(candidates, percent, cells):
    assert budget(candidates, total_cells=None, total_percent=percent) == cells


def test_an_items_seed_is_its_own():
    assert item_seed(1, "a") == item_seed(1, "a")
    assert len({tuple(item_seed(seed, name)) for seed in (1, 2**64 - 1) for name in ("a", "b", "")}) == 6


def test_settings_with_the_same_effect_are_stored_the_same():
    default = pb.SparsifySettings(mode=pb.SELECTION_MODE_MIN, k=1, background=pb.BACKGROUND_RULE_RING)
    spelled = pb.SparsifySettings(
        mode=pb.SELECTION_MODE_MIN, k=1, background=pb.BACKGROUND_RULE_RING, background_distance=10, seed=3
    )
    assert settled(default) == settled(spelled)
    spelled.mode = pb.SELECTION_MODE_RANDOM
    assert settled(spelled).seed == 3
    spelled.background = pb.BACKGROUND_RULE_ALL
    assert not settled(spelled).HasField("background_distance")


def test_an_amount_is_needed():
    with pytest.raises(InvalidArgument, match="total_percent"):
        read_settings(pb.SparsifySettings(mode=pb.SELECTION_MODE_MIN, background=pb.BACKGROUND_RULE_NONE))


def test_modes_and_backgrounds_are_those_of_the_proto():
    for mode in pb.SelectionMode.values()[1:]:
        for background in pb.BackgroundRule.values()[1:]:
            settings = read_settings(pb.SparsifySettings(mode=mode, background=background, k=1))
            assert pb.SelectionMode.Name(mode).endswith(f"_{settings.mode.name}")
            assert pb.BackgroundRule.Name(background).endswith(f"_{settings.background.name}")
