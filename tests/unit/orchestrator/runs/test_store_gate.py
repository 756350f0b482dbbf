"""Whether the store answers: asked when an attempt would begin, and again until it does."""

import pytest
from support.orchestrator import until

from cellsparse_common.storage import FolderStore
from cellsparse_orchestrator.runs.store_gate import StoreGate, find_problem


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def changes():
    return []


@pytest.fixture
def gate(root, changes):
    made = StoreGate(FolderStore(root), lambda: changes.append(1), 0.01)
    made.start()
    yield made
    made.stop()


def test_a_store_that_answers_opens_the_gate_and_keeps_nothing(gate, root, changes):
    assert not gate.ready()
    until(lambda: changes)
    until(gate.ready)
    assert (gate.problem, gate.waiting) == ("", "")
    assert list(FolderStore(root).list("")) == []


def test_an_outage_closes_it_until_the_store_is_back(gate, root, tmp_path):
    until(gate.ready)
    root.rename(tmp_path / "away")
    gate.suspect()
    until(lambda: not gate.ready() and gate.problem)
    assert gate.waiting == f"waiting for the store: {gate.problem}"
    assert "is missing" in gate.problem
    root.write_text("in its place")
    first = gate.problem
    assert not gate.ready()
    assert gate.asking
    assert gate.problem == first
    root.unlink()
    (tmp_path / "away").rename(root)
    until(gate.ready)  # nobody needs to ask again: it asks by itself
    assert gate.waiting == ""


def test_a_fault_of_ours_is_told(root):
    class Broken(FolderStore):
        def put(self, key, data):
            raise RuntimeError("unforeseen")

    assert find_problem(Broken(root)) == "RuntimeError: unforeseen."
