"""What a training does, in words."""

import pytest

from cellsparse_napari.progress import RunProgress, time_left
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2


def event(state="RUNNING", message="", **training):
    made = orchestrator_pb2.RunEvent(state=common_pb2.RunState.Value(f"RUN_STATE_{state}"), message=message)
    losses, validation = training.pop("losses", {}), training.pop("validation", {})
    for name, value in training.items():
        setattr(made.training, name, value)
    made.training.losses.update(losses)
    made.training.validation.update(validation)
    return made


def test_a_queued_run_says_why_it_waits():
    progress = RunProgress().update(event("QUEUED", "2 runs are before this one."))
    assert progress.text == "Waiting: 2 runs are before this one."
    assert progress.fraction is None


def test_loss_and_score_stay_until_there_are_newer_ones():
    run = RunProgress()
    assert run.update(event(step=0, total_steps=400)).text == "Training: step 0 of 400"
    run.update(event(step=100, total_steps=400, losses={"loss": 0.12345}))
    run.update(event(step=100, total_steps=400, validation={"score": 0.8149}))
    last = run.update(event(step=300, total_steps=400, eta_seconds=150.0))
    assert last.text == "Training: step 300 of 400, loss 0.123, score 0.81, about 2 min left"
    assert last.fraction == 0.75


def test_the_last_step_leaves_no_time():
    assert RunProgress().update(event(step=4, total_steps=4, eta_seconds=1)).text == "Training: step 4 of 4"


def test_a_failure_is_told_in_its_own_words():
    assert (
        RunProgress().update(event("RETRYING", "The trainer was lost.")).text == "Trying again: The trainer was lost."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "less than a minute left"),
        (61, "about 1 min left"),
        (3500, "about 58 min left"),
        (3900, "about 1 h 5 min left"),
    ],
)
def test_time_is_told_as_people_do(seconds, words):
    assert time_left(seconds) == words
