"""How long a training lasts that QuPath asks for.

QuPath's extension sends constants, and its user waits with a frozen window. So a training is the preset FAST, cut to a
time: nobody waits longer than that by much. A body with numbers of its own is taken at its word.
"""

from collections.abc import Sequence

from cellsparse_common.channels import MEAN
from cellsparse_gateway.qupath.bodies import SegmentBody
from cellsparse_gateway.qupath.refusals import unprocessable
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

FEWEST_STEPS = 10
TOO_LONG = 1.5
"""A training that would take this many times the time allowed is begun anew with fewer steps."""
_CONSTANTS = {(5, 8, 200), (1, 8, 200), (10, 8, 8)}
"""Epochs, batch size and steps that versions 0.2.0 and 0.1.0 of QuPath's extension send, whatever the user does."""
_DEFAULTS = SegmentBody(modelname="default", b64img="")


def has_own_length(body: SegmentBody) -> bool:
    """Whether a body says itself how long to train."""
    return (body.epochs, body.batchsize, body.steps) not in _CONSTANTS


def settings(body: SegmentBody, backend: str, initial_model: str, steps: int | None) -> trainer_pb2.TrainingSettings:
    """Return the settings of a training.

    Args:
        body: The request.
        backend: Name of the backend's field in TrainingSettings.
        initial_model: Model to start from; empty for random weights.
        steps: Steps that fit into the time allowed; None for the preset's. A body's own length overrules it.

    Raises:
        Refusal: A field's value is not allowed.
    """
    chosen = trainer_pb2.TrainingSettings(preset=trainer_pb2.PRESET_FAST, initial_model=initial_model)
    getattr(chosen, backend).SetInParent()
    if has_own_length(body):
        chosen.steps = min(body.epochs * body.steps, 10_000_000)
    elif steps:
        chosen.steps = steps
    for field, name in (("batchsize", "batch_size"), ("trainpatch", "crop_size"), ("lr", "learning_rate")):
        value = getattr(body, field)
        if value != getattr(_DEFAULTS, field):
            try:
                setattr(chosen, name, value)
            except ValueError:
                raise unprocessable(f"The field {field} is {value}, which is out of range.") from None
    if backend == "cellpose" and body.chan2 and not body.chan1:
        raise unprocessable(f"The field chan2 is {body.chan2} while chan1 is 0; choose the cells' channel with chan1.")
    if backend == "cellpose" and body.chan1:
        numbers = [body.chan1 - 1, body.chan2 - 1] if body.chan2 else [body.chan1 - 1]
        chosen.channels[:] = map(str, numbers)
    elif not initial_model:
        chosen.channels.append(MEAN)  # one channel of however many QuPath sends, as it always was
    return chosen


def fitting_steps(runs: Sequence[orchestrator_pb2.Run], seconds: float) -> int | None:
    """Return how many steps take so many seconds, as far as earlier runs of the same backend tell.

    Args:
        runs: Newest first.
        seconds: Time allowed.

    Returns:
        None if no run tells, or if all steps of the preset fit.
    """
    pace = next((pace for pace in map(_seconds_per_step, runs) if pace), None)
    whole = next((run.progress.total_steps for run in runs if not run.settings.HasField("steps")), 0)
    if pace is None or not whole or whole * pace <= seconds * TOO_LONG:
        return None
    return max(FEWEST_STEPS, int(seconds / pace))


def fewer_steps(run: orchestrator_pb2.Run, trained_seconds: float, seconds: float) -> int | None:
    """Return with how many steps a run should begin anew because it will take far too long; None if it need not."""
    progress = run.progress
    if run.state != common_pb2.RUN_STATE_RUNNING or progress.step < FEWEST_STEPS or not progress.eta_seconds:
        return None
    if trained_seconds + progress.eta_seconds <= seconds * TOO_LONG:
        return None
    pace = progress.eta_seconds / max(1, progress.total_steps - progress.step)
    return max(FEWEST_STEPS, int(seconds / pace))


def _seconds_per_step(run: orchestrator_pb2.Run) -> float | None:
    if run.state != common_pb2.RUN_STATE_SUCCEEDED or run.attempts != 1 or not run.progress.step:
        return None
    return (run.ended_at.ToNanoseconds() - run.started_at.ToNanoseconds()) / 1e9 / run.progress.step
