"""Processes of one training: they begin and end together, and notice who is lost."""

import contextlib
import socket
import threading

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import Unavailable
from cellsparse_trainer.distributed import heartbeat
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker

HOST = "127.0.0.1"
TOKEN = "run-1/2"


class Losses:
    """Collects the messages about lost processes."""

    def __init__(self):
        self.sentences = []
        self.noticed = threading.Event()

    def __call__(self, sentence):
        self.sentences.append(sentence)
        self.noticed.set()


@pytest.fixture
def port():
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def losses():
    return Losses(), Losses()


def meet(port, losses, ranks=(1,), world=2):
    coordinator = Coordinator(HOST, port, world=world, token=TOKEN, lost=losses[0])
    workers = [Worker(HOST, port, rank=rank, token=TOKEN, lost=losses[1], seconds=PATIENCE) for rank in ranks]
    coordinator.gather(PATIENCE)
    return coordinator, workers


def test_all_begin_go_and_end_together(port, losses):
    coordinator, workers = meet(port, losses, ranks=(2, 1), world=3)
    coordinator.begin(40)
    coordinator.next_step()
    coordinator.next_step()
    coordinator.end()
    for worker in workers:
        assert worker.begin() == 40
        assert [worker.next_step(), worker.next_step(), worker.next_step()] == [True, True, False]
        worker.close()
    coordinator.close()
    assert losses[0].sentences == losses[1].sentences == []


def test_says_who_is_missing_when_not_all_come(port, losses):
    coordinator = Coordinator(HOST, port, world=4, token=TOKEN, lost=losses[0])
    with (
        contextlib.closing(Worker(HOST, port, rank=2, token=TOKEN, lost=losses[1], seconds=PATIENCE)),
        pytest.raises(Unavailable, match=r"4 processes .* missing: 1, 3\."),
    ):
        coordinator.gather(1.5)
    coordinator.close()


def test_strangers_are_sent_away(port, losses):
    coordinator = Coordinator(HOST, port, world=2, token=TOKEN, lost=losses[0])
    for said in ("run-9/1 1", f"{TOKEN} 7", f"{TOKEN} one", "GET / HTTP/1.1", ""):
        with socket.create_connection((HOST, port)) as stranger:
            stranger.sendall(said.encode() + b"\n")
    worker = Worker(HOST, port, rank=1, token=TOKEN, lost=losses[1], seconds=PATIENCE)
    coordinator.gather(PATIENCE)
    coordinator.begin(0)
    assert worker.begin() == 0
    coordinator.end()
    coordinator.close()


def test_a_stranger_that_says_nothing_keeps_nobody_out(port, losses, monkeypatch):
    monkeypatch.setattr(heartbeat, "GREETING_SECONDS", 0.2)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 30.0)
    coordinator = Coordinator(HOST, port, world=2, token=TOKEN, lost=losses[0])
    with socket.create_connection((HOST, port)):
        worker = Worker(HOST, port, rank=1, token=TOKEN, lost=losses[1], seconds=PATIENCE)
        coordinator.gather(PATIENCE)
    coordinator.begin(3)
    assert worker.begin() == 3
    coordinator.end()
    coordinator.close()


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_ends_is_lost_at_once(port, losses, which):
    coordinator, (worker,) = meet(port, losses)
    (worker, coordinator)[which].close()
    assert losses[which].noticed.wait(PATIENCE)
    assert losses[which].sentences == [["Rank 1 of 2 is gone."], ["Rank 0 is gone."]][which]


def test_one_that_is_silent_is_lost(port, losses, monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.5)
    coordinator = Coordinator(HOST, port, world=2, token=TOKEN, lost=losses[0])
    with socket.create_connection((HOST, port)) as frozen:
        frozen.sendall(f"{TOKEN} 1\n".encode())
        coordinator.gather(PATIENCE)
        assert losses[0].noticed.wait(PATIENCE)
    assert losses[0].sentences[0].startswith("Rank 1 of 2 was silent")


def test_signs_of_life_go_on_while_nothing_is_said(port, losses, monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    coordinator, (worker,) = meet(port, losses)
    assert not losses[0].noticed.wait(1.5 * heartbeat.SILENT_SECONDS)
    assert not losses[1].noticed.is_set()
    coordinator.end()
    assert not worker.next_step()
    coordinator.close()


def test_gives_up_when_there_is_no_coordinator(port, losses):
    with pytest.raises(Unavailable, match=f"{HOST}:{port} within 0 s"):
        Worker(HOST, port, rank=1, token=TOKEN, lost=losses[1], seconds=0.3)
