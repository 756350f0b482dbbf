"""What a training does, in one line for people."""

from dataclasses import dataclass

from cellsparse import enum_names
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

WORDS = {"queued": "Waiting", "starting": "Starting", "running": "Training", "retrying": "Trying again"}
"""Run states for people."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What goes on."""

    text: str
    """One line."""
    fraction: float | None = None
    """Share that is done, 0 to 1; None if not known."""


class RunProgress:
    """Keeps the newest loss and score, as not every event of a run brings both."""

    def __init__(self) -> None:
        self._loss: float | None = None
        self._score: float | None = None

    def update(self, event: orchestrator_pb2.RunEvent) -> Progress:
        """Return what goes on after an event."""
        state = enum_names.name(common_pb2.RunState.DESCRIPTOR, event.state)
        training = event.training
        message = event.message or training.message
        word = WORDS.get(state, state.capitalize())
        if not event.HasField("training") or not training.total_steps or state != "running":
            return Progress(text=f"{word}: {message}" if message else f"{word} ...")
        self._loss = training.losses.get("loss", self._loss)
        self._score = training.validation.get("score", self._score)
        parts = [f"{word}: step {training.step:,} of {training.total_steps:,}"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.3g}")
        if self._score is not None:
            parts.append(f"score {self._score:.2f}")
        if training.eta_seconds and training.step < training.total_steps:
            parts.append(time_left(training.eta_seconds))
        return Progress(text=", ".join(parts), fraction=min(training.step / training.total_steps, 1.0))


def time_left(seconds: float) -> str:
    """Return an estimate as people say it."""
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    return f"about {minutes // 60} h {minutes % 60} min left"
