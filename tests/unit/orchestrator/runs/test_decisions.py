"""What the reconciler decides, for every combination of facts that matters."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.runs.decisions import Action, AttemptOutcome, Facts, decide
from cellsparse_proto.v1 import common_pb2

LOST, STORAGE = common_pb2.FAILURE_REASON_LOST, common_pb2.FAILURE_REASON_STORAGE
EVICTED = common_pb2.FAILURE_REASON_EVICTED
OUTCOMES = st.one_of(
    st.none(),
    st.builds(
        AttemptOutcome,
        state=st.sampled_from(sorted(run_states.FINAL)),
        reason=st.sampled_from(common_pb2.FailureReason.values()),
        message=st.sampled_from(["", "It broke."]),
        preempted=st.booleans(),
        damaged=st.booleans(),
    ),
)
FACTS = st.builds(
    Facts,
    state=st.sampled_from([value for value in common_pb2.RunState.values() if value]),
    attempts=st.integers(0, 12),
    max_attempts=st.integers(1, 10),
    interruptions=st.integers(0, 3),
    store_ready=st.booleans(),
    cancel_requested=st.booleans(),
    slot_free=st.booleans(),
    pause_over=st.booleans(),
    watched=st.booleans(),
    stopping=st.booleans(),
    outcome=OUTCOMES,
)


def act(state, **facts):
    return decide(Facts(state=state, **facts)).action


def test_a_queued_run_begins_when_it_is_its_turn():
    assert act(run_states.QUEUED) is Action.WAIT
    assert act(run_states.QUEUED, slot_free=True) is Action.BEGIN
    assert act(run_states.QUEUED, slot_free=True, cancel_requested=True) is Action.END


def test_a_retrying_run_begins_after_its_pause():
    assert act(run_states.RETRYING) is Action.WAIT
    assert act(run_states.RETRYING, pause_over=True) is Action.BEGIN
    assert act(run_states.RETRYING, pause_over=True, cancel_requested=True) is Action.END


@pytest.mark.parametrize("state", [run_states.QUEUED, run_states.RETRYING])
def test_nothing_begins_while_the_store_is_away(state):
    ready = {"slot_free": True, "pause_over": True}
    assert act(state, store_ready=False, **ready) is Action.WAIT
    assert act(state, store_ready=True, **ready) is Action.BEGIN
    assert act(state, store_ready=False, cancel_requested=True, **ready) is Action.END


def test_a_damaged_object_counts_as_a_failure_as_waiting_does_not_help():
    outcome = AttemptOutcome(state=run_states.FAILED, reason=STORAGE, message="It has another hash.", damaged=True)
    facts = Facts(state=run_states.RUNNING, attempts=2, max_attempts=3, outcome=outcome)
    assert decide(facts).counts
    found = decide(replace(facts, attempts=3))
    assert (found.state, found.message) == (run_states.FAILED, "It has another hash. This was attempt 3 of 3.")


@pytest.mark.parametrize("state", [run_states.STARTING, run_states.RUNNING])
def test_an_attempt_that_nobody_follows_is_taken_up(state):
    assert act(state) is Action.WATCH
    assert act(state, cancel_requested=True) is Action.WATCH
    assert act(state, watched=True) is Action.WAIT
    assert act(state, watched=True, cancel_requested=True) is Action.STOP
    assert act(state, watched=True, cancel_requested=True, stopping=True) is Action.WAIT


@pytest.mark.parametrize("reason", common_pb2.FailureReason.values())
def test_only_what_another_attempt_may_overcome_is_tried_again(reason):
    outcome = AttemptOutcome(state=run_states.FAILED, reason=reason, message="It broke.")
    found = decide(Facts(state=run_states.RUNNING, attempts=1, max_attempts=3, outcome=outcome))
    assert (found.action is Action.RETRY) == (reason in run_states.RETRIED)
    assert found.message == "It broke."


def test_the_last_attempt_fails_the_run_and_says_so():
    outcome = AttemptOutcome(state=run_states.FAILED, reason=LOST, message="It broke.")
    found = decide(Facts(state=run_states.RUNNING, attempts=3, max_attempts=3, outcome=outcome))
    assert (found.action, found.state, found.reason) == (Action.END, run_states.FAILED, LOST)
    assert found.message == "It broke. This was attempt 3 of 3."


def test_interruptions_do_not_count():
    outcome = AttemptOutcome(state=run_states.FAILED, reason=LOST)
    facts = Facts(state=run_states.RUNNING, attempts=4, interruptions=2, max_attempts=3, outcome=outcome)
    assert decide(facts).action is Action.RETRY


def test_a_cancelled_run_is_cancelled_however_its_attempt_ended_unless_it_was_done():
    for state, reason in ((run_states.FAILED, LOST), (run_states.CANCELLED, 0)):
        outcome = AttemptOutcome(state=state, reason=reason)
        facts = Facts(state=run_states.RUNNING, attempts=1, max_attempts=3, cancel_requested=True, outcome=outcome)
        assert decide(facts).state == run_states.CANCELLED
    facts = Facts(state=run_states.RUNNING, cancel_requested=True, outcome=AttemptOutcome(state=run_states.SUCCEEDED))
    assert decide(facts).state == run_states.SUCCEEDED


def test_an_attempt_that_somebody_else_stopped_is_lost():
    facts = Facts(
        state=run_states.RUNNING, attempts=1, max_attempts=3, outcome=AttemptOutcome(state=run_states.CANCELLED)
    )
    found = decide(facts)
    assert (found.action, found.reason) == (Action.RETRY, LOST)
    assert found.message


@given(FACTS)
def test_every_decision_is_a_legal_change_and_attempts_are_bounded(facts):
    found = decide(facts)
    if facts.state in run_states.FINAL:
        assert found.action is Action.WAIT
    if found.action in (Action.RETRY, Action.END):
        run_states.check_change(facts.state, found.state)
    if found.action is Action.RETRY:
        assert facts.attempts - facts.interruptions < facts.max_attempts or not found.counts
        assert found.counts == (not facts.outcome.preempted and (found.reason != STORAGE or facts.outcome.damaged))
        assert not facts.cancel_requested
    if found.action is Action.END and found.state == run_states.FAILED:
        assert facts.outcome is not None
        assert found.reason != STORAGE or facts.outcome.damaged
    if found.action is Action.BEGIN:
        assert facts.store_ready


@given(FACTS, st.integers(0, 10_000))
def test_an_outage_of_the_store_never_ends_a_run(facts, outages):
    """However often: only attempts that count use up the run."""
    attempts = facts.attempts + outages
    outcome = AttemptOutcome(state=run_states.FAILED, reason=STORAGE, message="Cannot reach it.")
    found = decide(replace(facts, state=run_states.RUNNING, attempts=attempts, interruptions=outages, outcome=outcome))
    assert found.state == (run_states.CANCELLED if facts.cancel_requested else run_states.RETRYING)
    assert facts.cancel_requested or not found.counts


def test_a_preemption_counts_as_no_failure_however_often_it_happens():
    outcome = AttemptOutcome(state=run_states.FAILED, reason=EVICTED, message="Others need it.", preempted=True)
    for attempts in (1, 2, 1000):
        facts = Facts(state=run_states.RUNNING, attempts=attempts, interruptions=attempts - 1, outcome=outcome)
        found = decide(facts)
        assert (found.action, found.counts, found.message) == (Action.RETRY, False, "Others need it.")
        assert found.in_queue, "no pause says when the next attempt trains"
    assert decide(replace(facts, cancel_requested=True)).state == run_states.CANCELLED


def test_too_little_memory_on_fewer_nodes_ends_no_run():
    outcome = AttemptOutcome(
        state=run_states.FAILED, reason=common_pb2.FAILURE_REASON_OUT_OF_MEMORY, message="Memory ran out."
    )
    facts = Facts(state=run_states.RUNNING, attempts=2, max_attempts=3, has_fewer=True, outcome=outcome)
    found = decide(facts)
    assert (found.action, found.counts) == (Action.RETRY, True)
    assert found.message == "Memory ran out. It had fewer nodes than the run asks for; the next attempt has more."
    assert decide(replace(facts, attempts=3)).state == run_states.FAILED
    assert decide(replace(facts, has_fewer=False)).state == run_states.FAILED
