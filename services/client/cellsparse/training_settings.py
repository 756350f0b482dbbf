"""Training and sparsify settings from keywords, through the protos' descriptors: a new backend needs nothing here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Kind
from google.protobuf.message import Message

from cellsparse import enum_names
from cellsparse.enum_names import FieldDescriptor
from cellsparse.errors import InvalidArgument
from cellsparse_common.rpc.rules import (
    WHOLE_NUMBERS,
    allowed_numbers,
    field_violations,
    takes_number,
    usual_members,
    weights_terms,
)
from cellsparse_proto.v1 import sparsifier_pb2, trainer_pb2


def backends() -> list[str]:
    """Return the names of the backends there are."""
    return [field.name for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields]


def usual_backends() -> list[str]:
    """Return the names of the backends that train without further ado: those that are meant where none is named."""
    return usual_members(trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"])


def terms_of_weights(backend: str) -> str:
    """Return what people should know about the terms of the weights that a backend starts from; empty for nothing."""
    return weights_terms(trainer_pb2.TrainingSettings.DESCRIPTOR.fields_by_name[backend])


def training_fields(backend: str) -> dict[str, FieldDescriptor]:
    """Return the settings of a backend by name, common ones and its own.

    One of its own that has the name of a common one is "backend.name", such as "cellpose.channels".

    Raises:
        InvalidArgument: There is no such backend.
    """
    if backend not in backends():
        raise InvalidArgument(f"backend is {backend!r}; allowed: {', '.join(backends())}.", "backend")
    common = trainer_pb2.TrainingSettings.DESCRIPTOR
    shared = _simple_fields(common)
    own = _simple_fields(common.fields_by_name[backend].message_type)
    return shared | {f"{backend}.{name}" if name in shared else name: field for name, field in own.items()}


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
    channel: int | str | None = None,
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
    values["channel"] = channel
    for name, value in values.items():
        if value is not None:
            assign(message, message.DESCRIPTOR.fields_by_name[name], value)
    return message


def describe(field: FieldDescriptor) -> str:
    """Return in words what a setting may be: "32 to 2048", "above 0 to 1", "fast|paper", "true|false"."""
    if field.is_repeated and field.cpp_type == Kind.CPPTYPE_STRING:
        return "numbers from 0 or names, with commas between"
    if field.is_repeated:
        return f"numbers {allowed_numbers(field)}, with commas between"
    if field.enum_type is not None:
        return "|".join(enum_names.names(field.enum_type))
    if field.cpp_type == Kind.CPPTYPE_STRING:
        return "an id"
    if field.cpp_type == Kind.CPPTYPE_BOOL:
        return "true|false"
    return allowed_numbers(field)


def setting_text(value: Any) -> str:
    """Return a setting's value as the text that `training_settings` and a study's grid take."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(setting_text(entry) for entry in value)
    return str(value)


def assign(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set one field from a Python value or from text.

    Raises:
        InvalidArgument: The value is of another kind, or breaks the field's rules.
    """
    try:
        if field.is_repeated:
            entries = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
            text = field.cpp_type == Kind.CPPTYPE_STRING
            convert = _word if text else _number
            getattr(message, field.name)[:] = [convert(field, entry) for entry in entries]
        elif field.enum_type is not None:
            setattr(message, field.name, enum_names.number(field.enum_type, value, field.name))
        elif field.cpp_type == Kind.CPPTYPE_BOOL:
            setattr(message, field.name, _truth(field, value))
        elif field.cpp_type == Kind.CPPTYPE_STRING:
            setattr(message, field.name, str(value))
        else:
            setattr(message, field.name, _number(field, value))
    except ValueError:  # too large for the field's kind of number
        raise _refused(field, value) from None
    for _, sentence in field_violations(message, field):
        raise InvalidArgument(sentence, field.name)


def _number(field: FieldDescriptor, value: Any) -> float | int:
    """Return a value as the field's kind of number; raises InvalidArgument if it is none, or breaks the rules."""
    try:
        chosen = _whole(value) if field.cpp_type in WHOLE_NUMBERS else float(value)
        good = takes_number(field, chosen)
    except (TypeError, ValueError, OverflowError):
        raise _refused(field, value) from None
    if not good:
        raise _refused(field, value)
    return chosen


def _word(field: FieldDescriptor, value: Any) -> str:
    """Return a channel's number or name as text; raises InvalidArgument if it is neither."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise _refused(field, value)
    return str(value).strip()


def _refused(field: FieldDescriptor, value: Any) -> InvalidArgument:
    kind = "a whole number, " if field.cpp_type in WHOLE_NUMBERS else ""
    return InvalidArgument(f"{field.name} is {value!r}; allowed: {kind}{describe(field)}.", field.name)


def _truth(field: FieldDescriptor, value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise InvalidArgument(f"{field.name} is {value!r}; allowed: true or false.", field.name)
    return text == "true"


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
