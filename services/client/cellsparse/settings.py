"""Training and sparsify settings from keywords, through the protos' descriptors: a new backend needs nothing here."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Kind
from google.protobuf.message import Message

from cellsparse import words
from cellsparse.errors import InvalidArgument
from cellsparse.words import FieldDescriptor
from cellsparse_proto.v1 import rules_pb2, sparsifier_pb2, trainer_pb2

_WHOLE = {
    Kind.CPPTYPE_INT32,
    Kind.CPPTYPE_INT64,
    Kind.CPPTYPE_UINT32,
    Kind.CPPTYPE_UINT64,
}


def backends() -> list[str]:
    """Return the names of the backends there are."""
    return [field.name for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields]


def training_settings(backend: str, values: Mapping[str, Any]) -> trainer_pb2.TrainingSettings:
    """Build the settings of a run.

    Args:
        backend: One of `backends()`.
        values: Settings by field name, common ones and the backend's own: {"steps": 100, "n_rays": 32}. Text is
            converted, so values may come from a command line.

    Raises:
        InvalidArgument: Unknown backend, unknown setting, or a value out of range; names what is allowed.
    """
    if backend not in backends():
        raise InvalidArgument(f"backend is {backend!r}; allowed: {', '.join(backends())}.", "backend")
    message = trainer_pb2.TrainingSettings()
    own: Message = getattr(message, backend)
    own.SetInParent()
    allowed = _simple_fields(message.DESCRIPTOR) | _simple_fields(own.DESCRIPTOR)
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
    """Return in words what a setting may be: "32 to 2048", "above 0 to 1", "fast|paper"."""
    if field.enum_type is not None:
        return "|".join(words.words(field.enum_type))
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    parts = [f"above {rules.above:.12g}"] if rules.HasField("above") else []
    if rules.HasField("min") or (field.cpp_type in _WHOLE and not parts):
        parts.append(f"{rules.min:.12g}")
    if rules.HasField("max"):
        parts.append(f"to {rules.max:.12g}")
    elif field.cpp_type in _WHOLE:
        parts.append("or more")
    return " ".join(parts) or "any number"


def assign(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set one field from a Python value or from text.

    Raises:
        InvalidArgument: The value is of another kind or out of range.
    """
    if field.enum_type is not None:
        setattr(message, field.name, words.number(field.enum_type, value, field.name))
        return
    whole = field.cpp_type in _WHOLE
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    try:
        chosen = _whole(value) if whole else float(value)
        good = (
            (not rules.HasField("min") or chosen >= rules.min)
            and (not rules.HasField("max") or chosen <= rules.max)
            and (not rules.HasField("above") or chosen > rules.above)
        )
        if good:
            setattr(message, field.name, chosen)
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        kind = "a whole number, " if whole else ""
        raise InvalidArgument(f"{field.name} is {value!r}; allowed: {kind}{describe(field)}.", field.name)


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
