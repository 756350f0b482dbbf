"""Who waits for news."""

import threading
import time

from cellsparse_orchestrator.notifier import Notifier

SECONDS = 10.0


def waits(notifier, topic, seen, seconds=0.05):
    """Whether somebody who saw a ring still waits for the next one after some time."""
    began = time.monotonic()
    notifier.wait(topic, seen, seconds)
    return time.monotonic() - began >= seconds


def test_a_ring_between_looking_and_waiting_is_not_lost():
    notifier = Notifier()
    seen = notifier.version("a")
    notifier.notify("b")
    assert waits(notifier, "a", seen)
    notifier.notify("a")
    assert not waits(notifier, "a", seen, SECONDS)
    assert waits(notifier, "a", notifier.version("a"))


def test_a_ring_wakes_who_waits():
    notifier = Notifier()
    seen = notifier.version("a")
    threading.Timer(0.05, notifier.notify, ("a",)).start()
    assert not waits(notifier, "a", seen, SECONDS)


def test_topics_are_forgotten_but_no_ring_is_lost():
    notifier = Notifier(most_topics=10)
    never, early = notifier.version("late"), notifier.version("early")
    notifier.notify("early")
    for number in range(1000):
        notifier.notify(f"run-{number}")
        notifier.notify("kept")
    assert len(notifier._last) <= 10
    assert not waits(notifier, "early", early, SECONDS)
    seen = notifier.version("early")
    assert waits(notifier, "early", seen)
    notifier.notify("late")
    for number in range(20):
        notifier.notify(f"other-{number}")
    assert not waits(notifier, "late", never, SECONDS)
