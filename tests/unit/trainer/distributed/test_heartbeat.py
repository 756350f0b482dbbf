"""Processes of one training: they begin and end together, and notice who is lost."""

import contextlib
import socket
import threading

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import Unavailable
from cellsparse_trainer.distributed import heartbeat
from cellsparse_trainer.distributed.heartbeat import Follower, Leader

HOST = "127.0.0.1"
WORD = "run-1/2"


class Losses:
    """Collects what is said of lost processes."""

    def __init__(self):
        self.sentences = []
        self.told = threading.Event()

    def __call__(self, sentence):
        self.sentences.append(sentence)
        self.told.set()


@pytest.fixture
def port():
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def losses():
    return Losses(), Losses()


def meet(port, losses, ranks=(1,), world=2):
    leader = Leader(HOST, port, world=world, word=WORD, lost=losses[0])
    followers = [Follower(HOST, port, rank=rank, word=WORD, lost=losses[1], seconds=PATIENCE) for rank in ranks]
    leader.gather(PATIENCE)
    return leader, followers


def test_all_begin_go_and_end_together(port, losses):
    leader, followers = meet(port, losses, ranks=(2, 1), world=3)
    leader.begin(40)
    leader.go()
    leader.go()
    leader.end()
    for follower in followers:
        assert follower.begin() == 40
        assert [follower.next(), follower.next(), follower.next()] == [True, True, False]
        follower.close()
    leader.close()
    assert losses[0].sentences == losses[1].sentences == []


def test_says_who_is_missing_when_not_all_come(port, losses):
    leader = Leader(HOST, port, world=4, word=WORD, lost=losses[0])
    with (
        contextlib.closing(Follower(HOST, port, rank=2, word=WORD, lost=losses[1], seconds=PATIENCE)),
        pytest.raises(Unavailable, match=r"4 processes .* missing: 1, 3\."),
    ):
        leader.gather(PATIENCE)
    leader.close()


def test_strangers_are_sent_away(port, losses):
    leader = Leader(HOST, port, world=2, word=WORD, lost=losses[0])
    for said in ("run-9/1 1", f"{WORD} 7", f"{WORD} one", "GET / HTTP/1.1", ""):
        with socket.create_connection((HOST, port)) as stranger:
            stranger.sendall(said.encode() + b"\n")
    follower = Follower(HOST, port, rank=1, word=WORD, lost=losses[1], seconds=PATIENCE)
    leader.gather(PATIENCE)
    leader.begin(0)
    assert follower.begin() == 0
    leader.end()
    leader.close()


def test_a_stranger_that_says_nothing_keeps_nobody_out(port, losses, monkeypatch):
    monkeypatch.setattr(heartbeat, "GREETING_SECONDS", 0.2)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 30.0)
    leader = Leader(HOST, port, world=2, word=WORD, lost=losses[0])
    with socket.create_connection((HOST, port)):
        follower = Follower(HOST, port, rank=1, word=WORD, lost=losses[1], seconds=PATIENCE)
        leader.gather(PATIENCE)
    leader.begin(3)
    assert follower.begin() == 3
    leader.end()
    leader.close()


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_ends_is_lost_at_once(port, losses, which):
    leader, (follower,) = meet(port, losses)
    (follower, leader)[which].close()
    assert losses[which].told.wait(PATIENCE)
    assert losses[which].sentences == [["Rank 1 of 2 is gone."], ["Rank 0 is gone."]][which]


def test_one_that_is_silent_is_lost(port, losses, monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.5)
    leader = Leader(HOST, port, world=2, word=WORD, lost=losses[0])
    with socket.create_connection((HOST, port)) as frozen:
        frozen.sendall(f"{WORD} 1\n".encode())
        leader.gather(PATIENCE)
        assert losses[0].told.wait(PATIENCE)
    assert losses[0].sentences[0].startswith("Rank 1 of 2 was silent")


def test_signs_of_life_go_on_while_nothing_is_said(port, losses, monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    leader, (follower,) = meet(port, losses)
    assert not losses[0].told.wait(PATIENCE)
    assert not losses[1].told.is_set()
    leader.end()
    assert not follower.next()
    leader.close()


def test_gives_up_when_there_is_no_leader(port, losses):
    with pytest.raises(Unavailable, match=f"{HOST}:{port} within 0 s"):
        Follower(HOST, port, rank=1, word=WORD, lost=losses[1], seconds=0.3)
