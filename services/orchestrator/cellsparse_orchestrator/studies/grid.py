"""Expand a study's grid to its members: pure functions of the request."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.rules import usual_members
from cellsparse_orchestrator.studies.label_sets import LabelSet
from cellsparse_orchestrator.studies.member_settings import applies, check_backends, check_name
from cellsparse_proto.v1 import sparsifier_pb2, study_pb2, trainer_pb2

MOST_MEMBERS = 10_000
ALL_CELLS = 0
"""The value of k that keeps every cell."""
_LABEL_AXES = ("modes", "backgrounds", "k")
_PAPER = study_pb2.StudyGrid(
    modes=[
        sparsifier_pb2.SELECTION_MODE_MIN,
        sparsifier_pb2.SELECTION_MODE_MAX,
        sparsifier_pb2.SELECTION_MODE_MINMAX,
    ],
    backgrounds=[sparsifier_pb2.BACKGROUND_RULE_NONE, sparsifier_pb2.BACKGROUND_RULE_SHIFTED],
    k=[1, 4, 16, 64, 256, ALL_CELLS],
    backends=usual_members(trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"]),
)


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One member of a study before it is created."""

    labels: LabelSet | None
    """Which labels it trains on; None for the dataset's own."""
    backend: str
    """Name of the backend's field in TrainingSettings."""
    seed: int
    settings: dict[str, str]
    """Values of the grid's settings that apply to this backend, by their names in the grid."""


def fill(grid: study_pb2.StudyGrid) -> study_pb2.StudyGrid:
    """Return a grid with its preset and all defaults filled in.

    Raises:
        InvalidArgument: An axis is missing, has a duplicate value, or has a value that is not allowed.
    """
    filled = study_pb2.StudyGrid()
    filled.CopyFrom(grid)
    if grid.preset == study_pb2.STUDY_PRESET_PAPER:
        for name in (*_LABEL_AXES, "backends"):
            if not getattr(filled, name):
                getattr(filled, name).extend(getattr(_PAPER, name))
    if not filled.seeds:
        filled.seeds.append(0)
    if not filled.backends:
        raise InvalidArgument("grid.backends is empty; give at least one backend, or a preset.", "grid.backends")
    check_backends(filled.backends)
    missing = [name for name in _LABEL_AXES if not getattr(filled, name)]
    if missing and len(missing) < len(_LABEL_AXES):
        raise InvalidArgument(
            f"grid.{missing[0]} is empty; give modes, backgrounds and k, or none of them to train on the dataset's own "
            "labels.",
            f"grid.{missing[0]}",
        )
    for name, enum in (("modes", sparsifier_pb2.SelectionMode), ("backgrounds", sparsifier_pb2.BackgroundRule)):
        if 0 in getattr(filled, name):
            allowed = ", ".join(value for value, number in enum.items() if number)
            raise InvalidArgument(f"grid.{name} holds {enum.Name(0)}; allowed: {allowed}.", f"grid.{name}")
    for name in (*_LABEL_AXES, "backends", "seeds"):
        _refuse_twice(f"grid.{name}", getattr(filled, name))
    _refuse_twice("grid.settings", [axis.name for axis in filled.settings])
    for axis in filled.settings:
        check_name(axis.name, filled.backends)
        _refuse_twice(f"grid.settings of {axis.name}", axis.values)
    return filled


def expand(grid: study_pb2.StudyGrid) -> list[GridPoint]:
    """Return the members of a filled grid in order: label sets outermost, then backends, settings and seeds.

    Raises:
        InvalidArgument: The grid has more than `MOST_MEMBERS` members.
    """
    count = sum(1 for _ in itertools.islice(_points(grid), MOST_MEMBERS + 1))
    if count > MOST_MEMBERS:
        raise InvalidArgument(f"The grid has more than {MOST_MEMBERS:,} members; take fewer values.", "grid")
    return list(_points(grid))


def varied(grid: study_pb2.StudyGrid) -> list[str]:
    """Return the names of the settings with more than one value."""
    return [axis.name for axis in grid.settings if len(axis.values) > 1]


def _points(grid: study_pb2.StudyGrid) -> Iterator[GridPoint]:
    for labels, backend in itertools.product(_label_sets(grid), grid.backends):
        axes = [axis for axis in grid.settings if applies(axis.name, backend)]
        for values in itertools.product(*(axis.values for axis in axes)):
            settings = {axis.name: value for axis, value in zip(axes, values, strict=True)}
            for seed in grid.seeds:
                yield GridPoint(labels=labels, backend=backend, seed=seed, settings=settings)


def _label_sets(grid: study_pb2.StudyGrid) -> Sequence[LabelSet | None]:
    if not grid.modes:
        return [None]
    distance = grid.background_distance if grid.HasField("background_distance") else None
    return [
        LabelSet(mode=mode, background=background, k=k, distance=distance)
        for mode, background, k in itertools.product(grid.modes, grid.backgrounds, grid.k)
    ]


def _refuse_twice(field: str, values: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise InvalidArgument(f"{field} has {value!r} twice; give every value once.", field)
        seen.add(value)
