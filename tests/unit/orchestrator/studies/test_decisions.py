"""What to do next for a study, as a pure function; and a simulation that no order of events breaks."""

import random

from hypothesis import given
from hypothesis import strategies as st

from cellsparse_orchestrator import run_states as run_states
from cellsparse_orchestrator.studies import states
from cellsparse_orchestrator.studies.decisions import Action, Decision, Facts, TrainingMember, WaitingMember, decide

GOING = [run_states.QUEUED, run_states.STARTING, run_states.RUNNING, run_states.RETRYING]


def waiting(*numbers, ready=True):
    return [WaitingMember(number=number, dataset_id=f"ds-{number}", ready=ready) for number in numbers]


def test_members_start_in_their_order_as_there_is_room():
    training = [TrainingMember(number=1, run_state=run_states.RUNNING)]
    facts = Facts(state=states.RUNNING, waiting=waiting(2, 3, 4), training=training)
    assert decide(facts, 3) == [Decision(action=Action.START, number=2), Decision(action=Action.START, number=3)]
    assert decide(facts, 1) == []


def test_members_whose_run_is_just_being_queued_have_taken_their_room():
    """Their label sets were made before that of an earlier member."""
    facts = Facts(state=states.RUNNING, waiting=waiting(1, 2, 3, 4), starting=frozenset({3, 4}))
    assert decide(facts, 2) == [Decision(action=Action.START, number=number) for number in (3, 4)]
    assert decide(facts, 3) == [Decision(action=Action.START, number=number) for number in (3, 4, 1)]


def test_a_quota_lets_fewer_start_than_there_are_slots():
    facts = Facts(state=states.RUNNING, waiting=waiting(1, 2, 3), allowed=1)
    assert decide(facts, 3) == [Decision(action=Action.START, number=1)]
    ready, missing = waiting(1), waiting(2, ready=False)
    used_up = Facts(state=states.RUNNING, waiting=[*ready, *missing], allowed=0)
    assert decide(used_up, 3) == [Decision(action=Action.SPARSIFY, number=2)]


def test_label_sets_are_made_once_and_those_that_are_there_need_not_wait():
    entries = [*waiting(1, ready=False), WaitingMember(number=2, dataset_id="ds-1", ready=False), *waiting(3)]
    steps = decide(Facts(state=states.RUNNING, waiting=entries), 2)
    assert steps == [Decision(action=Action.START, number=3), Decision(action=Action.SPARSIFY, number=1)]


def test_a_run_that_is_there_is_taken_over_whatever_the_state():
    entry = WaitingMember(number=1, dataset_id="ds-1", ready=True, has_run=True)
    for state in (states.RUNNING, states.PAUSED, states.CANCELLING):
        steps = decide(Facts(state=state, waiting=[entry, *waiting(2)]), 1)
        assert steps[0] == Decision(action=Action.START, number=1)
        assert Decision(action=Action.START, number=2) not in steps


def test_paused_studies_finish_what_they_began():
    training = [
        TrainingMember(number=1, run_state=run_states.SUCCEEDED),
        TrainingMember(number=2, run_state=run_states.RUNNING),
    ]
    facts = Facts(state=states.PAUSED, waiting=waiting(4, ready=False), training=training, evaluating=[3])
    assert decide(facts, 9) == [Decision(action=Action.CONCLUDE, number=1), Decision(action=Action.EVALUATE, number=3)]


def test_cancelling_ends_runs_once_and_scores_nothing():
    training = [
        TrainingMember(number=1, run_state=run_states.RUNNING),
        TrainingMember(number=2, run_state=run_states.RUNNING, cancel_requested=True),
        TrainingMember(number=3, run_state=run_states.CANCELLED),
    ]
    facts = Facts(state=states.CANCELLING, waiting=waiting(5), training=training, evaluating=[4])
    assert decide(facts, 9) == [
        Decision(action=Action.CONCLUDE, number=3),
        Decision(action=Action.CANCEL_RUN, number=1),
        Decision(action=Action.CANCEL_MEMBERS),
    ]


def test_a_study_without_unfinished_members_ends():
    for state in (states.RUNNING, states.PAUSED, states.CANCELLING):
        assert decide(Facts(state=state), 1) == [Decision(action=Action.FINISH)]


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 8))
def test_every_order_of_events_ends_every_member_once_within_the_slots(seed, slots, count):
    """Plays orchestrator and trainers: whatever ends first, all members end, and never more runs than slots exist."""
    chance = random.Random(seed)
    member_states = dict.fromkeys(range(1, count + 1), states.MEMBER_WAITING)
    runs = {}
    label_sets = set()
    study, scored = states.RUNNING, []
    for _ in range(1000 * count):
        numbers = {state: [n for n, s in member_states.items() if s == state] for state in set(member_states.values())}
        facts = Facts(
            state=study,
            waiting=[
                WaitingMember(number=n, dataset_id=str(n // 3), ready=str(n // 3) in label_sets, has_run=n in runs)
                for n in numbers.get(states.MEMBER_WAITING, [])[: slots + 2]
            ],
            training=[TrainingMember(number=n, run_state=runs[n]) for n in numbers.get(states.MEMBER_TRAINING, [])],
            evaluating=numbers.get(states.MEMBER_EVALUATING, []),
        )
        steps = decide(facts, slots)
        if steps == [Decision(action=Action.FINISH)]:
            break
        for step in chance.sample(steps, chance.randint(0, len(steps))):
            if step.action is Action.SPARSIFY:
                label_sets.add(str(step.number // 3))
            elif step.action is Action.START:
                runs.setdefault(step.number, run_states.QUEUED)
                if chance.random() > 0.2:  # else the orchestrator is killed before it can write this down
                    _move(member_states, step.number, states.MEMBER_TRAINING)
            elif step.action is Action.CONCLUDE:
                good = runs[step.number] == run_states.SUCCEEDED
                _move(member_states, step.number, states.MEMBER_EVALUATING if good else states.MEMBER_FAILED)
            elif step.action is Action.EVALUATE:
                scored.append(step.number)
                _move(member_states, step.number, states.MEMBER_SUCCEEDED)
        going = [number for number, state in runs.items() if state in GOING]
        assert len(going) <= slots
        if going and chance.random() > 0.3:
            runs[chance.choice(going)] = chance.choice([run_states.SUCCEEDED, run_states.FAILED])
        study = chance.choice([states.RUNNING, states.RUNNING, states.PAUSED])
    assert set(member_states.values()) <= states.MEMBER_FINAL
    assert len(scored) == len(set(scored))
    assert set(runs) == set(member_states)


def _move(member_states, number, state):
    assert states.member_may_change(member_states[number], state)
    member_states[number] = state
