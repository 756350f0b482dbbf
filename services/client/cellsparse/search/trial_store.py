"""The trials of a search, stored by Optuna in SQLite: next choices, pruning and results."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellsparse.errors import FailedPrecondition
from cellsparse.search.plan import SearchPlan
from cellsparse.search.space import Axis, Choices

if TYPE_CHECKING:
    import optuna

DATABASE_SECONDS = 30
"""Seconds to wait for another process that reads or writes the trials."""
PRUNED_AT, RUN_ID, MESSAGE, STEPS, SECONDS = "pruned_at", "run_id", "message", "steps", "training_seconds"


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial."""

    number: int
    """From 0."""
    state: str
    """running, complete, pruned or failed."""
    value: float | None
    """Validation score of its model; None if it has none."""
    settings: Mapping[str, Any]
    """What was chosen for it, by setting."""
    run_id: str = ""
    """Its run, and its model's id; that of an earlier trial with the same settings, if there was one."""
    steps: int = 0
    """Steps trained."""
    training_seconds: float = 0.0
    """From the run's start to its end."""
    message: str = ""
    """Why it failed, was pruned, or shares the run of another trial."""
    validations: Mapping[int, float] = field(default_factory=dict)
    """Validation scores by step."""


class TrialStore:
    """The trials of one search; safe to use from several threads.

    The settings of a trial depend only on the seed, its number and the trials before it, not on restarts of the driver.

    Args:
        plan: The search.
        path: SQLite file, made if missing.

    Raises:
        FailedPrecondition: Optuna is not installed.
    """

    def __init__(self, plan: SearchPlan, path: Path) -> None:
        self._optuna = load_optuna()
        self._plan = plan
        self._lock = threading.RLock()
        storage = self._optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": DATABASE_SECONDS}}
        )
        self._study: optuna.Study = self._optuna.create_study(
            study_name=plan.name,
            storage=storage,
            direction="maximize",
            pruner=_pruner(self._optuna, plan.pruner),
            load_if_exists=True,
        )

    def begun(self) -> int:
        """Return how many trials there are."""
        with self._lock:
            return len(self._study.get_trials(deepcopy=False))

    def unfinished(self) -> list[int]:
        """Return the numbers of the trials that were under way when the last driver ended."""
        return [row.number for row in self.rows() if row.state == "running"]

    def ask(self) -> int:
        """Begin a trial and return its number."""
        with self._lock:
            self._study.sampler = self._sampler(self.begun())
            trial = self._study.ask()
            self._suggest(trial)
            return trial.number

    def settings(self, number: int) -> dict[str, Any]:
        """Return the settings of a trial, and choose those that a killed driver left open."""
        with self._lock:
            self._study.sampler = self._sampler(number)
            return self._suggest(self._trial(number))

    def repeats(self, number: int) -> bool:
        """End a trial like an earlier one with the same settings that did not fail; return whether there was one."""
        with self._lock:
            row = self.row(number)
            for earlier in self.rows()[:number]:
                if earlier.settings == row.settings and earlier.state in ("complete", "pruned"):
                    self.note_run(number, earlier.run_id)
                    self._end(number, earlier.state, earlier.value, f"the same as trial {earlier.number}")
                    return True
        return False

    def note_run(self, number: int, run_id: str) -> None:
        """Store the run of a trial."""
        with self._lock:
            self._trial(number).set_user_attr(RUN_ID, run_id)

    def validated(self, number: int, step: int, value: float) -> bool:
        """Store a validation score and return whether to prune the trial. A decision to prune is stored, too.

        Repeated steps, after a restart of the driver or in the run's next attempt, count once.
        """
        with self._lock:
            if self.is_pruned(number):
                return True
            trial = self._trial(number)
            last = max(self.row(number).validations, default=-1)
            if step > last:
                trial.report(value, step)
            if step < last or not trial.should_prune():
                return False
            trial.set_user_attr(PRUNED_AT, step)
            return True

    def is_pruned(self, number: int) -> bool:
        """Whether it was decided to prune a trial."""
        with self._lock:
            return PRUNED_AT in self._frozen(number).user_attrs

    def note_end(self, number: int, steps: int, seconds: float) -> None:
        """Store how many steps and seconds the run of a trial took."""
        with self._lock:
            trial = self._trial(number)
            trial.set_user_attr(STEPS, steps)
            trial.set_user_attr(SECONDS, seconds)

    def complete(self, number: int, value: float) -> None:
        """End a trial with its model's score."""
        self._end(number, "complete", value, "")

    def prune(self, number: int) -> None:
        """End a trial whose run was cancelled as too poor."""
        with self._lock:
            self._end(number, "pruned", None, f"pruned at step {self._frozen(number).user_attrs[PRUNED_AT]}")

    def fail(self, number: int, message: str) -> None:
        """End a trial without a result."""
        self._end(number, "failed", None, message)

    def rows(self) -> list[TrialRow]:
        """Return all trials in their order."""
        with self._lock:
            return [_row(trial) for trial in self._study.get_trials(deepcopy=False)]

    def row(self, number: int) -> TrialRow:
        """Return one trial."""
        return _row(self._frozen(number))

    def _end(self, number: int, state: str, value: float | None, message: str) -> None:
        with self._lock:
            states = self._optuna.trial.TrialState
            final = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
            self._trial(number).set_user_attr(MESSAGE, message)
            self._study.tell(number, value if state == "complete" else None, state=final)

    def _frozen(self, number: int) -> "optuna.trial.FrozenTrial":
        with self._lock:
            return self._study.get_trials(deepcopy=False)[number]

    def _trial(self, number: int) -> "optuna.Trial":
        """Return a trial that can be continued, whichever driver started it."""
        trial: optuna.Trial = self._optuna.trial.Trial(self._study, self._frozen(number)._trial_id)
        return trial

    def _sampler(self, number: int) -> "optuna.samplers.BaseSampler":
        import numpy as np  # takes long to load, and `cellsparse search --help` needs none of it

        seed = np.random.SeedSequence([self._plan.seed, number]).generate_state(1)[0]
        sampler: optuna.samplers.BaseSampler = self._optuna.samplers.TPESampler(seed=int(seed))
        return sampler

    def _suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        return {axis.name: _choose(trial, axis) for axis in self._plan.over}


def load_optuna() -> Any:
    """Import Optuna.

    Raises:
        FailedPrecondition: It is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            "A search needs Optuna, which is not installed; `pip install 'cellsparse[search]'` installs it."
        ) from error
    return optuna


def _pruner(library: Any, name: str) -> "optuna.pruners.BasePruner":
    kinds: dict[str, type[optuna.pruners.BasePruner]] = {
        "none": library.pruners.NopPruner,
        "median": library.pruners.MedianPruner,
        "hyperband": library.pruners.HyperbandPruner,
    }
    return kinds[name]()


def _choose(trial: "optuna.Trial", axis: Axis) -> Any:
    """Return what a trial has for an axis; chosen now if it has nothing yet."""
    if isinstance(axis, Choices):
        return trial.suggest_categorical(axis.name, axis.values)
    if axis.step:
        return trial.suggest_int(axis.name, int(axis.low), int(axis.high), step=axis.step, log=axis.log)
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)


def _row(trial: "optuna.trial.FrozenTrial") -> TrialRow:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running")
    known = trial.user_attrs
    return TrialRow(
        number=trial.number,
        state=state,
        value=trial.value if state == "complete" else None,
        settings=dict(trial.params),
        run_id=known.get(RUN_ID, ""),
        steps=known.get(STEPS, 0),
        training_seconds=known.get(SECONDS, 0.0),
        message=known.get(MESSAGE, ""),
        validations=dict(trial.intermediate_values),
    )
