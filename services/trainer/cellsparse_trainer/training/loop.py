"""The training loop that all backends share: steps, validation, checkpoints, the final model."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cellsparse_common.errors import StorageError
from cellsparse_common.imaging.labels import count_cells
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.contract import Model, OutlineModel, Training
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker
from cellsparse_trainer.training.checkpoints import BEST, LATEST, Checkpoints, Name
from cellsparse_trainer.training.scoring import MEASURE, validation_scores
from cellsparse_trainer.training.validation import windows

REPORT_SECONDS = 1.0
FITTING_PIXELS = 2**21
"""Most pixels of validation items that thresholds are fitted to, and of training items besides for outlines: 32 images
of 256 x 256."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the loop reports; fields that do not apply are empty."""

    step: int
    """Optimizer steps done."""
    epoch: float
    """Passes over the training items so far."""
    losses: dict[str, float]
    """Means since the report before, by name."""
    validation: dict[str, float]
    """Validation scores by name."""
    images_per_second: float
    """Crops per second since the report before; 0 if unknown."""
    eta_seconds: float
    """Seconds until the last step, estimated; 0 if unknown."""
    checkpoint_step: int | None = None
    """Step of a checkpoint that is being stored."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the loop ended."""

    step: int
    """Step of the weights that `training` holds now."""
    validation: dict[str, float]
    """Their validation scores; empty if they were not validated."""
    finished: bool
    """False if it was stopped before the last step."""
    steps: int
    """Optimizer steps done in all; fewer than planned where the scores stopped rising or time was over."""
    late: bool = False
    """Whether it ended because time was over."""
    spent: "Spent | None" = field(default=None, compare=False)
    """What its time went into; None where nothing was left to do."""


@dataclass(kw_only=True)
class Spent:
    """What the time of a training went into, in seconds."""

    steps: float = 0.0
    validations: float = 0.0

    @contextlib.contextmanager
    def on(self, what: Literal["steps", "validations"]) -> Iterator[None]:
        """Add the time of the block."""
        began = time.monotonic()
        yield
        setattr(self, what, getattr(self, what) + time.monotonic() - began)


@dataclass(kw_only=True)
class Record:
    """Which weights are the best so far, and for how long no score has beaten all before it.

    Scores of a few labelled cells are noisy, and the highest of many is high by chance. So the best weights are not
    those of the highest score, but the latest whose score is at most one standard error below it (Breiman 1984): they
    were trained for longest, at a learning rate that has fallen.
    """

    cells: int
    """Labelled cells that scores are made of; the standard error is that of a share of so many."""
    floor: float = 0.0
    """Score of a given model that training starts from; weights with a lower one are never the best."""
    best: float | None = None
    """Highest score so far, 0 to 1; None before the first validation."""
    stale: int = 0
    """Validations since a score beat all before it; none while there was no score above 0."""

    def add(self, score: float) -> bool:
        """Take a score and return whether these weights are the best ones."""
        self.stale = self.stale + 1 if self.best and score <= self.best else 0
        chosen = self.best is None or score >= max(self.floor, self.best - self._error())
        self.best = max(score, self.best or 0.0)
        return chosen

    def _error(self) -> float:
        best = self.best or 0.0
        return math.sqrt(max(0.0, best * (1 - best)) / max(1, self.cells))

    def exhausted(self, patience: int) -> bool:
        """Whether that many validations in a row brought no better score; never with a patience of 0."""
        return 0 < patience <= self.stale


class Stopwatch:
    """Means and rates between two reports."""

    def __init__(self, plan: Plan, items: int) -> None:
        self._plan = plan
        self._items = items
        self._restart()

    def _restart(self) -> None:
        self._began = time.monotonic()
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, losses: dict[str, float]) -> None:
        """Count one step."""
        self._steps += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def due(self) -> bool:
        """Whether it is time for a report."""
        return time.monotonic() - self._began >= REPORT_SECONDS

    def report(self, step: int, validation: dict[str, float], checkpoint_step: int | None) -> Progress:
        """Return the progress since the report before and start anew."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = self._steps / seconds
        progress = Progress(
            step=step,
            epoch=step * self._plan.crops_per_step / max(self._items, 1),
            losses={name: value / self._steps for name, value in self._sums.items()} if self._steps else {},
            validation=validation,
            images_per_second=rate * self._plan.crops_per_step,
            eta_seconds=(self._plan.steps - step) / rate if rate else 0.0,
            checkpoint_step=checkpoint_step,
        )
        self._restart()
        return progress


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run trains, on what, and where its checkpoints go."""

    training: Training
    """A fresh training of the backend."""
    plan: Plan
    """Steps and intervals."""
    items: int
    """Number of training items."""
    validation: Sequence[Sample]
    """What to validate on (see `validation.windows`); not empty."""
    checkpoints: Checkpoints
    """The run's checkpoints."""
    start: Mapping[str, float] = field(default_factory=dict)
    """Validation scores before the first step, where training starts from a given model: it may stay the best."""
    coordinator: Coordinator | None = None
    """The other processes, where several train this model."""
    no_step_after: float | None = None
    """Time, by `time.monotonic`, from which on no further step is taken; None: the plan's steps decide."""


def run(setup: Setup, report: Callable[[Progress], None], stop: Callable[[], bool]) -> Outcome:
    """Train from the newest checkpoint to the last step, and leave the best weights in `setup.training`.

    Args:
        setup: What to train.
        report: Called about once a second, after every validation and every checkpoint.
        stop: Called after every step; True ends the training after a last checkpoint.

    Raises:
        FloatingPointError: The loss is not finite; checkpoints before it stay.
        StorageError: A checkpoint could not be read or written.
    """
    try:
        finished = _steps(setup, report, stop)
        setup.checkpoints.wait()
        return finished if not finished.finished else _best(setup, finished)
    except Exception:
        with contextlib.suppress(StorageError):
            setup.checkpoints.wait()
        raise


def _steps(setup: Setup, report: Callable[[Progress], None], stop: Callable[[], bool]) -> Outcome:
    training, plan, checkpoints = setup.training, setup.plan, setup.checkpoints
    step, record, owed = _resume(setup)
    watch = Stopwatch(plan, setup.items)
    scores: dict[str, float] = {}
    written, stopping, late, spent = time.monotonic(), False, False, Spent()
    if owed:
        with spent.on("validations"):
            scores = validation_scores(training.model(), setup.validation)
        best = record.add(scores["score"])
        _save(setup, step, scores, record, best=best)
        checkpoints.wait()  # the other processes begin with the newest checkpoint: it must not change under them
        report(watch.report(step, scores, step))
    if setup.start and record.best is None and step == 0:
        record.add(setup.start["score"])
        _save(setup, 0, setup.start, record, best=True)
        report(watch.report(0, dict(setup.start), 0))
    if setup.coordinator is not None:
        setup.coordinator.begin(step)
    while step < plan.steps and not record.exhausted(plan.patience) and not stopping and not late:
        if setup.coordinator is not None:
            setup.coordinator.next_step()
        with spent.on("steps"):
            watch.add(training.train_step(step))
        step += 1
        stopping = stop()
        late = setup.no_step_after is not None and time.monotonic() >= setup.no_step_after and not stopping
        last = step == plan.steps or late
        scores = {}
        if last or (step % plan.validate_every == 0 and not stopping):
            with spent.on("validations"):
                scores = validation_scores(training.model(), setup.validation)
        improved = bool(scores) and record.add(scores["score"])
        due = step % plan.checkpoint_every == 0 or time.monotonic() - written >= plan.checkpoint_seconds
        saved = due or improved or stopping or last or record.exhausted(plan.patience)
        if saved:
            _save(setup, step, scores, record, best=improved)
            written = time.monotonic()
        if saved or scores or watch.due():
            report(watch.report(step, scores, step if saved else None))
    if setup.coordinator is not None:
        setup.coordinator.end()
    # A checkpoint may lie beyond the last step: a later attempt may have fewer steps.
    finished = step >= plan.steps or record.exhausted(plan.patience) or late
    return Outcome(step=step, validation=scores, finished=finished, steps=step, late=late, spent=spent)


def _save(setup: Setup, step: int, scores: Mapping[str, float], record: Record, *, best: bool) -> None:
    """Write a checkpoint, as the best one or only as the newest."""
    names: set[Name] = {LATEST, BEST} if best else {LATEST}
    setup.checkpoints.write(
        step,
        scores.get("score"),
        names,
        setup.training.save,
        best=record.best,
        stale=record.stale,
        measure=MEASURE,
    )


def follow(training: Training, checkpoints: Checkpoints, worker: Worker) -> int:
    """Train beside rank 0, which decides where to begin and when to end; return the steps done in all.

    Raises:
        FloatingPointError: The loss of all ranks together is not finite.
        StorageError: The checkpoint to begin with could not be read.
    """
    first = worker.begin()
    if first > 0:
        latest = checkpoints.pointer(LATEST)
        if latest is None or latest.step != first:
            found = "none" if latest is None else f"step {latest.step}"
            raise StorageError(f"Rank 0 resumes from the checkpoint of step {first}, but the newest here is {found}.")
        training.load(checkpoints.fetch(latest))
    step = first
    while worker.next_step():
        training.train_step(step)
        step += 1
    return step


def tune(model: Model, plan: Plan, validation: Sequence[Sample], train: Sequence[Sample]) -> None:
    """Fit to labelled cells what turns a network's output into cells: thresholds, and how outlines are refined.

    It looks at windows around labelled cells, as validation does, to bound the time. A handful of labelled cells tells
    little about outlines, so those of training items are looked at, too: where an outline lies in the image's
    brightness does not depend on what the network has seen.

    Args:
        model: The weights to fit for.
        plan: Gives the size of crops, and the seed.
        validation: Items that chose the best checkpoint.
        train: Training items; may be the same sequence.
    """
    looked_at = windows(validation, plan, FITTING_PIXELS)
    model.tune(looked_at)
    if isinstance(model, OutlineModel):
        trained_on = [] if train is validation else windows(train, plan, FITTING_PIXELS)
        model.fit_outlines([*looked_at, *trained_on])


def _resume(setup: Setup) -> tuple[int, Record, bool]:
    """Load the newest checkpoint, if there is one.

    Returns:
        The steps done, the record of scores, and whether the checkpoint still has to be validated. A training that is
        stopped where a validation is due has no time for it; without it the resumed run would differ from an
        uninterrupted one.
    """
    plan = setup.plan
    cells = sum(count_cells(sample.label) for sample in setup.validation)
    record = Record(cells=cells, floor=setup.start.get("score", 0.0))
    latest = setup.checkpoints.pointer(LATEST)
    if latest is None:
        return 0, record, False
    setup.training.load(setup.checkpoints.fetch(latest))
    due = latest.step < plan.steps and latest.step % plan.validate_every == 0
    if latest.measure == MEASURE:
        record = replace(record, best=latest.best, stale=latest.stale)
    return latest.step, record, due and latest.score is None


def _best(setup: Setup, last: Outcome) -> Outcome:
    """Load the best weights, unless they are the last ones."""
    best = setup.checkpoints.pointer(BEST)
    if best is not None and best.step != last.step:
        setup.training.load(setup.checkpoints.fetch(best))
        last = replace(last, step=best.step, validation={})
    if last.validation:
        return last
    scores = validation_scores(setup.training.model(), setup.validation)
    return replace(last, validation=scores)
