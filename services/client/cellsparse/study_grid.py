"""The grid of a study: which combinations of labels, backends, seeds and settings it trains."""

from collections.abc import Mapping, Sequence
from typing import Any

from cellsparse import enum_names
from cellsparse.errors import InvalidArgument
from cellsparse.training_settings import setting_text
from cellsparse_proto.v1 import common_pb2, sparsifier_pb2, study_pb2

ALL = "all"
"""The value of k that keeps every cell."""
LARGEST_K = 65535


def make_grid(
    *,
    preset: str = "",
    modes: Sequence[str] = (),
    backgrounds: Sequence[str] = (),
    k: Sequence[int | str] = (),
    backends: Sequence[str] = (),
    seeds: Sequence[int | str] = (),
    distance: int | None = None,
    settings: Mapping[str, Sequence[Any]] | None = None,
) -> study_pb2.StudyGrid:
    """Build a grid (see `cellsparse.Client.study`).

    Raises:
        InvalidArgument: An unknown word, or a number out of range.
    """
    grid = study_pb2.StudyGrid(
        modes=[enum_names.number(sparsifier_pb2.SelectionMode.DESCRIPTOR, mode, "modes") for mode in modes],
        backgrounds=[
            enum_names.number(sparsifier_pb2.BackgroundRule.DESCRIPTOR, rule, "backgrounds") for rule in backgrounds
        ],
        k=[_k(value) for value in k],
        backends=backends,
        seeds=[_whole("seeds", seed, 0, 2**64 - 1) for seed in seeds],
        background_distance=None if distance is None else _whole("distance", distance, 1, 1024),
    )
    if preset:
        grid.preset = enum_names.number(study_pb2.StudyPreset.DESCRIPTOR, preset, "preset")
    for name, values in (settings or {}).items():
        entries = [values] if isinstance(values, str) or not isinstance(values, Sequence) else values
        grid.settings.add(name=name, values=[setting_text(value) for value in entries])
    return grid


def split_number(split: str) -> "common_pb2.Split":
    """Return the split with this name; raises InvalidArgument."""
    number: common_pb2.Split = enum_names.number(common_pb2.Split.DESCRIPTOR, split, "split")
    return number


def _k(value: int | str) -> int:
    return 0 if value == ALL else _whole("k", value, 1, LARGEST_K, f', or "{ALL}"')


def _whole(name: str, value: int | str, least: int, most: int, or_else: str = "") -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise InvalidArgument(f"{name} is {value!r}; allowed: whole numbers {least} to {most:,}{or_else}.", name)
    return number
