"""When a lease may be taken, without a database."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cellsparse_orchestrator.db.holder import _INITIAL_PIDS, has_ended, parse_holder, this_process
from cellsparse_orchestrator.db.lease import LOOKS, Seen, Watch


@pytest.fixture(scope="module")
def dead():
    """A holder on this machine whose process has ended."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    return replace(this_process(), pid=int(ended.stdout), started=this_process().started)


def seen(holder, beat=0, fence=3):
    return Seen(fence=fence, beat=beat, holder=holder.to_json() if holder else "")


def test_a_holder_survives_being_stored():
    here = this_process()
    assert parse_holder(here.to_json()) == here
    assert here.pid == os.getpid()
    assert str(here) == f"process {os.getpid()} on {here.host}"
    for text in ("", "{", "[]", '{"pid": 1}', "null"):
        assert parse_holder(text) is None


def test_only_a_process_that_has_certainly_ended_is_dead(dead):
    here = this_process()
    assert has_ended(dead, here)
    assert not has_ended(here, here)
    assert has_ended(replace(here, started=here.started - 100), here)  # its id was given to another process
    for other in ({"host": "elsewhere"}, {"machine": "another"}, {"pids": "pid:[1]"}):
        assert not has_ended(replace(dead, **other), here)


def test_the_machine_was_started_again(dead):
    here = replace(this_process(), machine="m", pids=_INITIAL_PIDS, boot="b2")
    before = replace(here, boot="b1")
    assert has_ended(before, here)
    assert not has_ended(replace(before, machine=""), replace(here, machine=""))
    container = replace(here, pids="pid:[4026539999]")
    assert not has_ended(replace(container, boot="b1"), container)


def test_a_free_lease_and_that_of_a_dead_process_are_taken_at_the_first_look(dead):
    assert Watch(this_process()).may_take(seen(None))
    assert Watch(this_process()).may_take(seen(dead))


def test_a_holder_elsewhere_is_dead_after_looks_without_a_sign_of_life():
    elsewhere = replace(this_process(), host="elsewhere")
    watch = Watch(this_process())
    answers = [watch.may_take(seen(elsewhere)) for _ in range(LOOKS + 1)]
    assert answers == [False] * LOOKS + [True]
    # A sign of life, another holder, or an outage of the database: from the start again.
    for change in (lambda: watch.may_take(seen(elsewhere, beat=1)), lambda: watch.may_take(seen(elsewhere, fence=4))):
        assert not change()
    for _ in range(LOOKS - 1):
        assert not watch.may_take(seen(elsewhere, fence=4))
    watch.forget()
    answers = [watch.may_take(seen(elsewhere, fence=4)) for _ in range(LOOKS + 1)]
    assert answers == [False] * LOOKS + [True]


def test_a_holder_that_lives_is_never_taken_for_dead():
    watch = Watch(this_process())
    elsewhere = replace(this_process(), host="elsewhere")
    assert not any(watch.may_take(seen(elsewhere, beat=number // (LOOKS - 1))) for number in range(20 * LOOKS))
