"""Who waits for news."""

import threading
import time

from support.limits import PATIENCE

from cellsparse_orchestrator.runs.events import Bell


def waits(bell, topic, seen, seconds=0.05):
    """Whether somebody who saw a ring still waits for the next one after some time."""
    began = time.monotonic()
    bell.wait(topic, seen, seconds)
    return time.monotonic() - began >= seconds


def test_a_ring_between_looking_and_waiting_is_not_lost():
    bell = Bell()
    seen = bell.last("a")
    bell.ring("b")
    assert waits(bell, "a", seen)
    bell.ring("a")
    assert not waits(bell, "a", seen, PATIENCE)
    assert waits(bell, "a", bell.last("a"))


def test_a_ring_wakes_who_waits():
    bell = Bell()
    seen = bell.last("a")
    threading.Timer(0.05, bell.ring, ("a",)).start()
    assert not waits(bell, "a", seen, PATIENCE)


def test_topics_are_forgotten_but_no_ring_is_lost():
    bell = Bell(most_topics=10)
    never, early = bell.last("late"), bell.last("early")
    bell.ring("early")
    for number in range(1000):
        bell.ring(f"run-{number}")
        bell.ring("kept")
    assert len(bell._last) <= 10
    assert not waits(bell, "early", early, PATIENCE)
    seen = bell.last("early")
    assert waits(bell, "early", seen)
    bell.ring("late")
    for number in range(20):
        bell.ring(f"other-{number}")
    assert not waits(bell, "late", never, PATIENCE)
