"""What a trainer trains and should not."""

from cellsparse_orchestrator.runs.strays import parse, strays


def test_only_attempts_of_our_runs_that_are_not_under_way_are_ended():
    active = [("run-a", 1), ("run-a", 2), ("run-b", 1), ("run-theirs", 1)]
    found = strays(active, known={"run-a", "run-b"}, under_way={("run-a", 2)})
    assert found == [("run-a", 1), ("run-b", 1)]


def test_names_of_attempts():
    assert parse(["run-1/2", "run-1/3", "", "run-1", "run-1/x", "/1"]) == [("run-1", 2), ("run-1", 3)]
