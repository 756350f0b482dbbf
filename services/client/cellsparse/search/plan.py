"""The plan of a search, fixed when it starts."""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cellsparse.errors import InvalidArgument
from cellsparse.search.space import Axis, parse_axis
from cellsparse.training_settings import setting_text, training_settings
from cellsparse_proto.v1 import orchestrator_pb2

METRICS = ("score", "f1", "precision", "recall", "mean_true_score")
"""Validation scores that trainers report, of labelled pixels; all are 0 to 1, and larger is better."""
PRUNERS = ("none", "median", "hyperband")
MOST_TRIALS = 10_000
DEFAULT_TRIALS = 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A search."""

    name: str
    """Its name, which is also its folder's, 1 to 64 letters, digits, dots, dashes and underscores."""
    token: str
    """Random prefix of this search's request ids, so that a new search of the same name creates new runs."""
    dataset_id: str
    """Dataset to train on."""
    backend: str
    """Backend to train."""
    over: tuple[Axis, ...]
    """Settings that are searched over."""
    settings: Mapping[str, str]
    """Settings that all trials share, by name."""
    trials: int
    """Trials in all, 1 to 10,000; the only part that a later start may change."""
    metric: str
    """Validation score to raise, one of `METRICS`."""
    pruner: str
    """How poor trials are stopped early, one of `PRUNERS`."""
    seed: int
    """Seed of the choices, 0 to 4,294,967,295; the runs' own seed is a setting."""
    max_attempts: int | None
    """Of each run, 1 to 10; None: 3."""
    priority: int
    """Of the runs, -100 to 100."""

    def request(self, number: int, chosen: Mapping[str, Any]) -> orchestrator_pb2.CreateRunRequest:
        """Return the request for the run of a trial. The same number and values give the same request."""
        return orchestrator_pb2.CreateRunRequest(
            request_id=f"search-{self.token}-{number}",
            name=f"{self.name} {number}",
            dataset_id=self.dataset_id,
            settings=training_settings(self.backend, {**self.settings, **chosen}),
            max_attempts=self.max_attempts,
            priority=self.priority,
        )

    def with_trials(self, trials: int) -> "SearchPlan":
        """Return the plan with another number of trials; raises InvalidArgument."""
        _check("trials", trials, 1, MOST_TRIALS)
        return replace(self, trials=trials)

    def differences(self, other: "SearchPlan") -> list[str]:
        """Return which parts differ from another plan's, apart from token, number of trials and order of settings."""
        mine, theirs = self.plain(), other.plain()
        return [name for name in mine if name not in ("token", "trials") and mine[name] != theirs[name]]

    def plain(self) -> dict[str, Any]:
        """Return the plan as values that JSON knows."""
        return {**asdict(self), "over": {axis.name: axis.text() for axis in self.over}}

    def to_json(self) -> str:
        """Return the plan as text."""
        return json.dumps(self.plain(), indent=1) + "\n"


def make_plan(
    name: str,
    dataset: str,
    backend: str,
    *,
    over: Mapping[str, str | Sequence[Any]],
    settings: Mapping[str, Any] | None = None,
    trials: int = DEFAULT_TRIALS,
    metric: str = "score",
    pruner: str = "median",
    seed: int = 0,
    max_attempts: int | None = None,
    priority: int = 0,
) -> SearchPlan:
    """Return the checked plan of a search.

    Args:
        name: Its name; letters, digits, dots, dashes and underscores.
        dataset: Dataset id.
        backend: One of `training_settings.backends()`.
        over: What to search, by setting: "1e-5..1e-2:log", "2,4,8" or [2, 4, 8] (see `space.parse_axis`).
        settings: Settings of all trials, as `cellsparse.Client.train` takes them.
        trials: Trials in all, 1 to 10,000.
        metric: Validation score to raise: "score", "f1", "precision", "recall" or "mean_true_score".
        pruner: "median" cancels a run whose best validation so far is below the median of the earlier ones' at the
            same step, "hyperband" halves the runs again and again, "none" lets all train to their end.
        seed: Seed of the choices.
        max_attempts: Of each run, 1 to 10; not given: 3.
        priority: Of the runs, -100 to 100; larger starts earlier.

    Raises:
        InvalidArgument: Something is unknown or out of range.
    """
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f"name is {name!r}; allowed: 1 to 64 letters, digits, dots, dashes and underscores, the first a "
            "letter or digit.",
            "name",
        )
    if not over:
        raise InvalidArgument("A search needs at least one setting to search over.", "over")
    axes = tuple(parse_axis(backend, key, values) for key, values in over.items())
    names = [axis.name for axis in axes]
    fixed = {key: setting_text(value) for key, value in (settings or {}).items()}
    for name_twice in {entry for entry in names if names.count(entry) > 1 or entry in fixed}:
        raise InvalidArgument(f"{name_twice} is given twice; it is either searched over once, or set.", name_twice)
    training_settings(backend, fixed)
    _check("trials", trials, 1, MOST_TRIALS)
    _check("seed", seed, 0, 2**32 - 1)
    _check("max_attempts", 3 if max_attempts is None else max_attempts, 1, 10)
    _check("priority", priority, -100, 100)
    for field, word, allowed in (("metric", metric, METRICS), ("pruner", pruner, PRUNERS)):
        if word not in allowed:
            raise InvalidArgument(f"{field} is {word!r}; allowed: {', '.join(allowed)}.", field)
    return SearchPlan(
        name=name,
        token=uuid.uuid4().hex,
        dataset_id=dataset,
        backend=backend,
        over=axes,
        settings=fixed,
        trials=trials,
        metric=metric,
        pruner=pruner,
        seed=seed,
        max_attempts=max_attempts,
        priority=priority,
    )


def _check(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidArgument(f"{field} is {value}; allowed: {least:,} to {most:,}.", field)


def from_json(text: str) -> SearchPlan:
    """Return the plan that `SearchPlan.to_json` wrote; raises ValueError, KeyError or TypeError."""
    values = json.loads(text)
    over = tuple(parse_axis(values["backend"], name, axis) for name, axis in values.pop("over").items())
    return SearchPlan(over=over, **values)
