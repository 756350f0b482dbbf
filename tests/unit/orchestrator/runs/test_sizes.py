"""How many nodes attempts have, and with how few they may begin."""

import pytest

from cellsparse_common.errors import Aborted, InvalidArgument
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.decisions import AttemptOutcome, Facts, decide
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_orchestrator.runs.sizes import check_size, fewest
from cellsparse_orchestrator.runs.transitions import AttemptEnd, RunTransitions
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, trainer_pb2

LOST, MEMORY = common_pb2.FAILURE_REASON_LOST, common_pb2.FAILURE_REASON_OUT_OF_MEMORY


def settings(**given):
    return trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **given)


@pytest.mark.parametrize(
    ("given", "attempt", "too_few", "expected"),
    [
        ({}, 2, 0, 1),
        ({"nodes": 4}, 2, 0, 4),
        ({"nodes": 4, "min_nodes": 2}, 1, 0, 4),
        ({"nodes": 4, "min_nodes": 2}, 2, 0, 2),
        ({"nodes": 4, "min_nodes": 2}, 3, 2, 3),
        ({"nodes": 4, "min_nodes": 2}, 4, 3, 4),
        ({"nodes": 4, "min_nodes": 4}, 2, 0, 4),
    ],
)
def test_only_a_later_attempt_may_have_fewer_and_no_more_than_ran_out_of_memory(given, attempt, too_few, expected):
    assert fewest(settings(**given), attempt, too_few) == expected


def test_more_than_all_nodes_are_refused():
    check_size(settings(nodes=2, min_nodes=2))
    check_size(settings())
    with pytest.raises(InvalidArgument, match=r"min_nodes is 2; allowed: 1 to settings.nodes, 1"):
        check_size(settings(min_nodes=2))


@pytest.fixture
def database(tmp_path):
    made = Database(f"sqlite:///{tmp_path / 'a.db'}")
    yield made
    made.close()


def fail(transitions, attempt, reason):
    """End an attempt as the reconciler does."""
    outcome = AttemptOutcome(state=run_states.FAILED, reason=reason, message="It ended.")
    facts = Facts(state=run_states.STARTING, attempts=attempt.number, max_attempts=9, has_fewer=attempt.has_fewer)
    decision = decide(Facts(**{**vars(facts), "outcome": outcome}))
    transitions.end_attempts(
        [AttemptEnd(run_id=attempt.run_id, number=attempt.number, outcome=outcome, decision=decision)]
    )


def test_the_size_of_each_attempt_is_kept_with_the_run(database):
    Datasets(database).add(dataset_pb2.Dataset(id="ds-1", train_items=1, created_at=timestamp(now())))
    runs, transitions = Runs(database, Notifier()), RunTransitions(database, Notifier())
    request = orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=settings(nodes=2, min_nodes=1))
    runs.add("run-1", "one", request)
    assert runs.get("run-1").nodes == 0

    (first,) = transitions.begin_attempts(["run-1"])
    assert (first.nodes, first.min_nodes, runs.get("run-1").nodes) == (2, 2, 2)
    fail(transitions, first, LOST)

    (second,) = transitions.begin_attempts(["run-1"])
    assert (second.nodes, second.min_nodes) == (2, 1)
    transitions.set_nodes(second, 1, "Attempt 2 goes on with 1 of 2 nodes.")
    second = transitions.newest_attempt("run-1")
    assert (second.nodes, second.has_fewer, runs.get("run-1").nodes) == (1, True, 1)
    assert runs.get("run-1").message == "Attempt 2 goes on with 1 of 2 nodes."
    fail(transitions, second, MEMORY)
    with pytest.raises(Aborted, match="does not wait any more"):
        transitions.set_nodes(second, 1, "Too late.")

    (third,) = transitions.begin_attempts(["run-1"])
    assert (third.nodes, third.min_nodes) == (2, 2), "one node had too little memory"
