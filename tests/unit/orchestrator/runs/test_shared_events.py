"""Many watchers of a run cost one look into the database."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.caller import Caller, acting
from cellsparse_orchestrator.runs import shared_events
from cellsparse_orchestrator.runs.shared_events import SharedEvents
from cellsparse_proto.v1 import orchestrator_pb2, rules_pb2


class Table:
    def __init__(self):
        self.looks = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, run_id, after):
        self.looks.append((run_id, after))
        assert self.go.wait(PATIENCE)
        if run_id == "none":
            raise NotFound("There is no run 'none'.")
        return [orchestrator_pb2.RunEvent(sequence=after + 1)], False


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(shared_events, "FRESH_SECONDS", PATIENCE)
    return Table()


def test_who_has_seen_the_same_shares_a_look(table):
    events = SharedEvents(table)
    table.go.clear()
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(events, "run-1", 3, 7) for _ in range(20)]
        table.go.set()
        assert {answer.result(PATIENCE)[0][0].sequence for answer in asked} == {4}
    assert table.looks == [("run-1", 3)]


@pytest.mark.parametrize("other", [("run-2", 3, 7), ("run-1", 4, 7), ("run-1", 3, 8)])
def test_anything_else_is_looked_up(table, other):
    events = SharedEvents(table)
    events("run-1", 3, 7)
    events(*other)
    assert len(table.looks) == 2


def test_callers_of_different_projects_share_nothing(table):
    events = SharedEvents(table)
    for project in ("prj-1", "prj-2", "prj-2"):
        caller = Caller(token_id="t", name="n", role=rules_pb2.ROLE_READER, project_id=project)
        with acting(caller):
            events("run-1", 3, 7)
    assert len(table.looks) == 2


def test_what_is_old_is_looked_up_again(table, monkeypatch):
    monkeypatch.setattr(shared_events, "FRESH_SECONDS", -1.0)
    events = SharedEvents(table)
    events("run-1", 3, 7)
    events("run-1", 3, 7)
    assert len(table.looks) == 2


def test_errors_are_not_kept(table):
    events = SharedEvents(table)
    for _ in range(2):
        with pytest.raises(NotFound):
            events("none", 0, 0)
    assert len(table.looks) == 2
