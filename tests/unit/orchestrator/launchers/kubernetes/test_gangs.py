"""Places that are held in part are given back, and tried again."""

from dataclasses import replace

from cellsparse_orchestrator.launchers.kubernetes.gangs import Gangs
from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict

PART = Verdict(waiting=True, no_room=True, in_part=True, message="1 of 2 pods have a node.")
NAME = "run-1-a1"


def test_a_part_is_kept_for_a_while():
    removed = []
    gangs = Gangs(60, removed.append)
    said = gangs.look(NAME, PART)
    assert replace(said, again_seconds=PART.again_seconds) == PART
    assert 59 < said.again_seconds <= 60, "until it is given back, nothing in the cluster has to change"
    assert gangs.waits(NAME, left=True) is None
    assert removed == []


def test_a_part_is_given_back_and_the_job_made_again_when_all_is_gone():
    removed = []
    gangs = Gangs(0, removed.append)
    said = gangs.look(NAME, PART)
    assert said.message == "1 of 2 pods have a node; its nodes were released."
    assert removed == [NAME]
    waiting = gangs.waits(NAME, left=True)
    assert (waiting.waiting, waiting.no_room) == (True, True)
    assert gangs.waits(NAME, left=False) is None


def test_what_runs_whole_begins_anew_with_its_patience():
    gangs = Gangs(0, [].append)
    whole = Verdict(address="10.0.0.1")
    assert gangs.look(NAME, whole) is whole
    gangs.look("other", PART)
    gangs.forget("other")
    assert gangs.waits("other", left=True) is None


def test_a_job_is_given_back_for_another_one_in_its_place():
    removed = []
    gangs = Gangs(60, removed.append)
    gangs.give_back(NAME)
    assert removed == [NAME]
    assert gangs.waits(NAME, left=True).waiting
    assert gangs.waits(NAME, left=False) is None
