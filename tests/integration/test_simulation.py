"""Runs under random faults: see `support.simulation`. `make test-sim` plays 10,000 schedules."""

import logging
from unittest import mock

import pytest
from support import simulation

from cellsparse_orchestrator.db import lease
from cellsparse_orchestrator.db.session import Database

SCHEDULES, PARTS = 40, 4


@pytest.fixture(autouse=True)
def silence():
    """Every outage is logged with each call that fails."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_fault_loses_or_repeats_anything(part):
    broken = {seed: found for seed in range(part, SCHEDULES, PARTS) if (found := simulation.play(seed))}
    assert broken == {}


def test_a_seed_plays_the_same_again():
    stories = []
    for _ in range(2):
        story = []
        assert simulation.play(7, story.append) == ""
        stories.append(story)
    assert stories[0] == stories[1]
    assert stories[0]


def test_a_holder_that_goes_on_after_it_lost_the_lease_is_noticed():
    with (
        mock.patch.object(lease, "check", return_value=None),
        mock.patch.object(lease, "renew", return_value=None),
        mock.patch.object(Database, "confirm_lease", return_value=None),
    ):
        found = [simulation.play(seed) for seed in range(8)]
    assert any("wrote after lease" in broken for broken in found)


def test_a_pause_that_a_jump_of_the_clock_made_long_is_noticed():
    """Runs once waited for the hour by which the clock had been wrong."""
    with mock.patch.object(
        simulation.RunReconciler,
        "_rests",
        lambda _, run: run.retry_at is not None and run.retry_at > simulation.clock.now(),
    ):
        assert "did not end" in simulation.play(4)
