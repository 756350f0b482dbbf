"""Training and sparsify settings from keywords, through the protos' descriptors: a new backend needs nothing here."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Kind
from google.protobuf.message import Message

from cellsparse import enum_names
from cellsparse.enum_names import FieldDescriptor
from cellsparse.errors import InvalidArgument
from cellsparse_proto.v1 import rules_pb2, sparsifier_pb2, trainer_pb2

_WHOLE = {
    Kind.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Kind.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Kind.CPPTYPE_UINT32: (0, 2**32 - 1),
    Kind.CPPTYPE_UINT64: (0, 2**64 - 1),
}
"""Kinds of whole numbers, with the smallest and the largest."""


def backends() -> list[str]:
    """Return the names of the backends there are."""
    return [field.name for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields]


def training_fields(backend: str) -> dict[str, FieldDescriptor]:
    """Return the settings of a backend by name, common ones and its own.

    Raises:
        InvalidArgument: There is no such backend.
    """
    if backend not in backends():
        raise InvalidArgument(f"backend is {backend!r}; allowed: {', '.join(backends())}.", "backend")
    common = trainer_pb2.TrainingSettings.DESCRIPTOR
    return _simple_fields(common) | _simple_fields(common.fields_by_name[backend].message_type)


def training_settings(backend: str, values: Mapping[str, Any]) -> trainer_pb2.TrainingSettings:
    """Build the settings of a run.

    Args:
        backend: One of `backends()`.
        values: Settings by field name, common ones and the backend's own: {"steps": 100, "n_rays": 32}. Text is
            converted, so values may come from a command line.

    Raises:
        InvalidArgument: Unknown backend, unknown setting, or a value out of range; names what is allowed.
    """
    allowed = training_fields(backend)
    message = trainer_pb2.TrainingSettings()
    own: Message = getattr(message, backend)
    own.SetInParent()
    unknown = [name for name in values if name not in allowed]
    if unknown:
        listed = "; ".join(f"{name}: {describe(field)}" for name, field in allowed.items())
        named = ", ".join(repr(name) for name in unknown)
        raise InvalidArgument(f"{backend} has no setting {named}. Allowed settings: {listed}.", unknown[0])
    for name, value in values.items():
        field = allowed[name]
        assign(own if field.containing_type is own.DESCRIPTOR else message, field, value)
    return message


def sparsify_settings(
    *,
    mode: str,
    k: int | None,
    background: str,
    distance: int | None,
    total_cells: int | None,
    percent: float | None,
    seed: int,
) -> sparsifier_pb2.SparsifySettings:
    """Build sparsify settings; exactly one of `k`, `total_cells` and `percent` is given.

    Raises:
        InvalidArgument: Unknown word, value out of range, or not exactly one amount.
    """
    amounts = {"k": k, "total_cells": total_cells, "total_percent": percent}
    given = {name: value for name, value in amounts.items() if value is not None}
    if len(given) != 1:
        raise InvalidArgument(f"Give exactly one of k, total_cells and percent, not {len(given)} of them.", "amount")
    message = sparsifier_pb2.SparsifySettings()
    values = {"mode": mode, **given, "background": background, "background_distance": distance, "seed": seed}
    for name, value in values.items():
        if value is not None:
            assign(message, message.DESCRIPTOR.fields_by_name[name], value)
    return message


def describe(field: FieldDescriptor) -> str:
    """Return in words what a setting may be: "32 to 2048", "above 0 to 1", "fast|paper", "true|false"."""
    if field.is_repeated:
        return f"numbers {_range(field)}, with commas between"
    return _range(field)


def _range(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return "|".join(enum_names.words(field.enum_type))
    if field.cpp_type == Kind.CPPTYPE_STRING:
        return "an id"
    if field.cpp_type == Kind.CPPTYPE_BOOL:
        return "true|false"
    rules = rules_of(field)
    listed = getattr(rules, "in")
    if listed:
        return ", ".join(map(str, listed))
    parts = [f"above {rules.above:.12g}"] if rules.HasField("above") else []
    if rules.HasField("min") or (field.cpp_type in _WHOLE and not parts):
        parts.append(f"{rules.min:.12g}")
    if rules.HasField("max"):
        parts.append(f"to {rules.max:.12g}")
    elif field.cpp_type in _WHOLE:
        parts.append("or more")
    if rules.multiple_of:
        parts[-1] += f", multiples of {rules.multiple_of}"
    return " ".join(parts) or "any number"


def rules_of(field: FieldDescriptor) -> Any:
    """Return the rules that the proto gives a field (see rules.proto)."""
    return field.GetOptions().Extensions[rules_pb2.rules]


def assign(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set one field from a Python value or from text.

    Raises:
        InvalidArgument: The value is of another kind or out of range.
    """
    if field.is_repeated:
        entries = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
        getattr(message, field.name)[:] = [_number(field, entry) for entry in entries]
    elif field.enum_type is not None:
        setattr(message, field.name, enum_names.number(field.enum_type, value, field.name))
    elif field.cpp_type == Kind.CPPTYPE_BOOL:
        setattr(message, field.name, _truth(field, value))
    elif field.cpp_type == Kind.CPPTYPE_STRING:
        setattr(message, field.name, str(value))
    else:
        setattr(message, field.name, _number(field, value))


def _truth(field: FieldDescriptor, value: Any) -> bool:
    word = str(value).lower()
    if word not in ("true", "false"):
        raise InvalidArgument(f"{field.name} is {value!r}; allowed: true or false.", field.name)
    return word == "true"


def _number(field: FieldDescriptor, value: Any) -> float | int:
    whole = field.cpp_type in _WHOLE
    rules = rules_of(field)
    listed = getattr(rules, "in")
    try:
        chosen = _whole(value) if whole else float(value)
    except (TypeError, ValueError, OverflowError):
        chosen = math.nan
    smallest, largest = _WHOLE.get(field.cpp_type, (-math.inf, math.inf))
    low = rules.min if rules.HasField("min") else smallest
    high = rules.max if rules.HasField("max") else largest
    good = low <= chosen <= high and (not rules.HasField("above") or chosen > rules.above)
    if not good or (rules.multiple_of and chosen % rules.multiple_of) or (listed and chosen not in listed):
        kind = "a whole number, " if whole else ""
        raise InvalidArgument(f"{field.name} is {value!r}; allowed: {kind}{describe(field)}.", field.name)
    return chosen


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError(value)
    if isinstance(value, str):
        return int(value)
    if int(value) != value:
        raise ValueError(value)
    return int(value)


def _simple_fields(message: Any) -> dict[str, FieldDescriptor]:
    return {field.name: field for field in message.fields if field.message_type is None}
