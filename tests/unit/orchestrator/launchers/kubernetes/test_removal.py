"""Jobs are deleted in the background; one that cannot be deleted holds nobody up."""

import threading
import time

import pytest
from support.limits import PATIENCE, QUICK

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.launchers.kubernetes import removal
from cellsparse_orchestrator.launchers.kubernetes.removal import Remover


class Cluster:
    def __init__(self):
        self.asked = []
        self.broken = set()
        self.slow = threading.Event()
        self.slow.set()

    def delete(self, name):
        assert self.slow.wait(PATIENCE)
        self.asked.append(name)
        if name in self.broken:
            raise Unavailable("no answer")


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def remover(cluster, monkeypatch):
    monkeypatch.setattr(removal, "_PAUSE_SECONDS", 0.05)
    remover = Remover(cluster.delete)
    remover.start()
    yield remover
    remover.stop()
    assert not remover.is_alive()


def test_asking_returns_at_once_and_each_is_deleted_once(cluster, remover):
    cluster.slow.clear()
    for name in ("a", "b", "a", "b"):
        remover.remove(name)
    assert cluster.asked == []
    cluster.slow.set()
    remover.stop()
    assert cluster.asked == ["a", "b"]


def test_what_fails_is_tried_a_few_times_and_then_left(cluster, remover):
    cluster.broken.add("a")
    remover.remove("a")
    remover.remove("b")
    end = time.monotonic() + PATIENCE
    while "b" not in cluster.asked and time.monotonic() < end:
        time.sleep(0.01)
    assert cluster.asked == ["a", "a", "a", "b"]
    cluster.broken.clear()
    remover.remove("a")
    remover.stop()
    assert cluster.asked[4:] == ["a"]


def test_the_end_does_not_wait_for_what_cannot_be_deleted(cluster, remover, monkeypatch):
    monkeypatch.setattr(removal, "_PAUSE_SECONDS", PATIENCE)
    cluster.broken.add("a")
    remover.remove("a")
    began = time.monotonic()
    remover.stop()
    assert time.monotonic() - began < QUICK


def test_one_that_never_ran_can_be_stopped(cluster):
    Remover(cluster.delete).stop()
