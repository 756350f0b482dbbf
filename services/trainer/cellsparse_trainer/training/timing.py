"""Chooses the steps of a training that was given minutes: measures this machine, and keeps the choice with the run.

The choice is made once per run and stored. Later attempts take it as it is, and so do all processes that train one
model together. The training itself begins afresh after the measurement: with the chosen plan its weights are those of a
run that was given these steps.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.config.presets import PLAN_FIELDS
from cellsparse_trainer.config.time_budget import Measured, finishing_seconds, fit_to_time
from cellsparse_trainer.contract import Training
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker
from cellsparse_trainer.training.ahead import ahead
from cellsparse_trainer.training.scoring import validation_scores
from cellsparse_trainer.training.validation import windows

PROBE_ITEMS = 8
"""Training items that the measured steps draw from."""
FIRST_STEPS, STEPS = 2, 4
"""Steps that are not counted, since frameworks prepare themselves in them, and those that are."""
_FILE = "budget.json"
_CHOSEN = ("steps", "batch_size", "validate_every", "warmup_steps", "budget", "minutes")
"""Fields of a plan that are chosen."""
_MEASURE = "measure"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a measurement takes."""

    create: Callable[[Sequence[Sample]], Training]
    """Builds a training on some items."""
    workers: int
    """Processes that make batches ahead of the network."""
    train: Sequence[Sample]
    """All training items."""
    validation: Sequence[Sample]
    """All validation items."""
    began: float
    """When the attempt began, by `time.monotonic`."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How long a run trains."""

    plan: Plan
    """The run's plan, its steps chosen."""
    finishing: float | None = None
    """Seconds kept for what comes after the last step; None: nothing was measured, the steps were given."""


def choose(
    plan: Plan,
    settings: trainer_pb2.TrainingSettings,
    store: ObjectStore,
    run_id: str,
    trial: Trial,
    peers: Coordinator | Worker | None = None,
) -> Choice:
    """Return the plan with the steps that fit into its minutes; unchanged where it has none, or steps are given.

    Args:
        plan: The run's.
        settings: What was asked for.
        store: Keeps the choice.
        run_id: The run.
        trial: What is measured.
        peers: The other processes that train this model, who measure together; rank 0 decides. None: there are none.

    Raises:
        StorageError: The store failed, or what it keeps is damaged.
    """
    if plan.minutes is None or settings.HasField("steps"):
        return Choice(plan=plan)
    if isinstance(peers, Worker):
        line = peers.hear()
        if line == _MEASURE:
            _time_steps(trial)
            line = peers.hear()
        return _chosen(plan, json.loads(line))
    chosen = _stored(store, run_id, plan)
    if chosen is None:
        if peers is not None:
            peers.tell(_MEASURE)
        measured = _measure(plan, trial)
        fitted = fit_to_time(plan, measured, _given(settings))
        chosen = {name: getattr(fitted, name) for name in _CHOSEN}
        chosen["finishing"] = finishing_seconds(plan, measured)
        store.put(keys.report_file(run_id, _FILE), json.dumps(chosen).encode())
    if peers is not None:
        peers.tell(json.dumps(chosen))
    return _chosen(plan, chosen)


def _chosen(plan: Plan, chosen: Mapping[str, Any]) -> Choice:
    return Choice(plan=replace(plan, **{name: chosen[name] for name in _CHOSEN}), finishing=float(chosen["finishing"]))


def _stored(store: ObjectStore, run_id: str, plan: Plan) -> dict[str, Any] | None:
    """Return what an earlier attempt chose; None if none did, or for other minutes."""
    try:
        kept: dict[str, Any] = json.loads(store.get(keys.report_file(run_id, _FILE)))
        _chosen(plan, kept)
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"The steps chosen for run {run_id} are damaged: {error}.") from error
    return kept if kept["minutes"] == plan.minutes else None


def _given(settings: trainer_pb2.TrainingSettings) -> set[str]:
    names = {proto: name for name, proto in PLAN_FIELDS.items()}
    return {names.get(field.name, field.name) for field, _ in settings.ListFields()}


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """What was measured of the first steps of a training on a few of the items."""

    training: Training
    first: float
    """Seconds of the first steps together."""
    step: float
    """Seconds of each later step."""
    setting_up: float
    """Expected seconds of building a training on all items."""


def _time_steps(trial: Trial) -> _Steps:
    """Build trainings and do some steps of one."""
    with _clock() as reading:
        items = _spread(trial.train, PROBE_ITEMS)
    trial.create(items[:1])  # frameworks prepare themselves
    with _clock() as creating_one:
        trial.create(items[:1])
    with _clock() as creating:
        training = trial.create(items)
    per_item = max(0.0, creating[0] - creating_one[0]) / max(1, len(items) - 1) + reading[0] / len(items)
    took = []
    with ahead(training, trial.workers, FIRST_STEPS + STEPS):
        for step in range(FIRST_STEPS + STEPS):
            with _clock() as one:
                training.train_step(step)
            took.append(one[0])
    return _Steps(
        training=training,
        first=sum(took[:FIRST_STEPS]),
        step=median(took[FIRST_STEPS:]),
        setting_up=creating_one[0] + per_item * len(trial.train),
    )


def _measure(plan: Plan, trial: Trial) -> Measured:
    """Time the steps and a validation of a training that is then thrown away."""
    steps = _time_steps(trial)
    looked_at = windows(trial.validation, plan)
    part = _spread(looked_at, PROBE_ITEMS)
    with _clock() as predicting:
        validation_scores(steps.training.model(), part)
    per_pixel = predicting[0] / sum(each.label.size for each in part)
    validation = per_pixel * sum(each.label.size for each in looked_at)
    return Measured(
        before=time.monotonic() - trial.began,
        setting_up=steps.setting_up,
        first_step=steps.first,
        step=steps.step,
        validation=min(validation, _MOST_VALIDATION * steps.step * plan.validate_every),
        finishing=per_pixel * _tuned_pixels(trial.validation),
    )


_MOST_VALIDATION = 0.2
"""A validation is expected to take at most this share of the steps before it (see `time_budget.MOST_FINISHING`)."""
_TUNED_ITEMS = 16
"""Validation items that choosing the thresholds is expected to look at."""


def _tuned_pixels(validation: Sequence[Sample]) -> int:
    """Return about how many pixels the choice of thresholds looks at."""
    return int(validation[0].label.size) * min(len(validation), _TUNED_ITEMS)


def _spread(items: Sequence[Sample], most: int) -> list[Sample]:
    chosen = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[int(at)] for at in chosen]


@contextlib.contextmanager
def _clock() -> Iterator[list[float]]:
    """Give a list that holds, after the block, how many seconds the block took."""
    found: list[float] = []
    began = time.monotonic()
    yield found
    found.append(time.monotonic() - began)
