"""Threads that wait for a notification."""

import threading
import time

from support.limits import PATIENCE

from cellsparse_orchestrator.notifier import Notifier


def waits(notifier, topic, seen, seconds=0.05):
    """Return whether a thread that has seen a version still waits for the next one after some time."""
    began = time.monotonic()
    notifier.wait(topic, seen, seconds)
    return time.monotonic() - began >= seconds


def test_a_notification_between_looking_and_waiting_is_not_lost():
    notifier = Notifier()
    seen = notifier.version("a")
    notifier.notify("b")
    assert waits(notifier, "a", seen)
    notifier.notify("a")
    assert not waits(notifier, "a", seen, PATIENCE)
    assert waits(notifier, "a", notifier.version("a"))


def test_a_notification_wakes_a_waiting_thread():
    notifier = Notifier()
    seen = notifier.version("a")
    threading.Timer(0.05, notifier.notify, ("a",)).start()
    assert not waits(notifier, "a", seen, PATIENCE)


def test_topics_are_evicted_but_no_notification_is_lost():
    notifier = Notifier(most_topics=10)
    never, early = notifier.version("late"), notifier.version("early")
    notifier.notify("early")
    for number in range(1000):
        notifier.notify(f"run-{number}")
        notifier.notify("kept")
    assert len(notifier._last) <= 10
    assert not waits(notifier, "early", early, PATIENCE)
    seen = notifier.version("early")
    assert waits(notifier, "early", seen)
    notifier.notify("late")
    for number in range(20):
        notifier.notify(f"other-{number}")
    assert not waits(notifier, "late", never, PATIENCE)


def test_news_tell_what_they_are_about_and_are_taken_once():
    notifier = Notifier()
    seen = notifier.version("a")
    notifier.tell("a", "one", "two")
    notifier.tell("a", "one", "three")
    notifier.tell("b", "four")
    assert not waits(notifier, "a", seen, PATIENCE)
    assert notifier.take("a") == {"one", "two", "three"}
    assert notifier.take("a") == set()


def test_closing_wakes_everybody_for_good():
    notifier = Notifier()
    threading.Timer(0.05, notifier.close).start()
    assert not waits(notifier, "a", notifier.version("a"), PATIENCE)
    assert not waits(notifier, "b", notifier.version("b"), PATIENCE)
    assert not notifier._waiting
