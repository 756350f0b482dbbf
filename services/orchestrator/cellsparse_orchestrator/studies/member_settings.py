"""Build the training settings of a member from the grid's text, by the protos' descriptors."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from google.protobuf import json_format

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.rules import violations
from cellsparse_proto.v1 import trainer_pb2

# protobuf's type stubs have two unrelated classes for each kind of descriptor.
Field: TypeAlias = Any
_OWN_AXES = ("seed",)


def applies(name: str, backend: str) -> bool:
    """Return whether a grid's setting applies to members of this backend."""
    return _find(name, backend) is not None


def check_backends(backends: Iterable[str]) -> None:
    """Raise InvalidArgument, naming the backends there are, for an unknown backend."""
    known = [field.name for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields]
    for backend in backends:
        if backend not in known:
            raise InvalidArgument(f"backend is {backend!r}; allowed: {', '.join(known)}.", "grid.backends")


def check_name(name: str, backends: Iterable[str]) -> None:
    """Refuse a setting that no chosen backend has.

    Raises:
        InvalidArgument: No chosen backend has it; the message names the settings there are.
    """
    chosen = list(backends)
    if name.rpartition(".")[2] in _OWN_AXES:
        raise InvalidArgument(f"{name} is an axis of its own; give grid.{name.rpartition('.')[2]}s.", "grid.settings")
    if not any(applies(name, backend) for backend in chosen):
        listed = sorted({field for backend in chosen for field in _fields(backend)} - set(_OWN_AXES))
        raise InvalidArgument(
            f"{' and '.join(chosen)} have no setting {name!r}. Allowed settings: {', '.join(listed)}.", "grid.settings"
        )


def member_settings(backend: str, seed: int, values: Mapping[str, str]) -> trainer_pb2.TrainingSettings:
    """Return how a member trains.

    Args:
        backend: Name of a field in TrainingSettings' oneof `backend`.
        seed: Seed.
        values: Text by setting name; all apply to the backend. "unet.steps" overrides "steps".

    Raises:
        InvalidArgument: A value has the wrong type or is out of range; the message names the setting.
    """
    settings = trainer_pb2.TrainingSettings(seed=seed)
    own = getattr(settings, backend)
    own.SetInParent()
    for name in sorted(values, key=lambda name: "." in name):
        field = _find(name, backend)
        if field is None:
            raise InvalidArgument(f"{backend} has no setting {name!r}.", "grid.settings")
        target = own if field.containing_type is own.DESCRIPTOR else settings
        target.ClearField(field.name)
        try:
            json_format.ParseDict({field.name: _json_value(field, values[name])}, target)
        except (json_format.ParseError, ValueError) as error:
            raise InvalidArgument(f"{name} is {values[name]!r}; allowed: {_kind(field)}.", "grid.settings") from error
    broken = violations(settings)
    if broken:
        path, sentence = broken[0]
        raise InvalidArgument(f"{backend}: {sentence}", f"grid.settings: {path}")
    return settings


def _find(name: str, backend: str) -> Field | None:
    prefix, _, own = name.rpartition(".")
    return _fields(backend).get(own) if prefix in ("", backend) else None


def _fields(backend: str) -> dict[str, Field]:
    """Return the settings of a backend by name; its own settings hide common ones of the same name."""
    common: Field = trainer_pb2.TrainingSettings.DESCRIPTOR
    own = common.fields_by_name[backend].message_type
    return {field.name: field for message in (common, own) for field in message.fields if field.message_type is None}


def _json_value(field: Field, text: str) -> Any:
    """Return the JSON value for a value given as text; ParseDict accepts numbers as text."""
    if field.is_repeated:
        return [entry.strip() for entry in text.split(",")]
    if field.enum_type is not None:
        name = text.strip().upper().replace("-", "_")
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return name if name in field.enum_type.values_by_name else prefix + name
    if field.cpp_type == field.CPPTYPE_BOOL:
        return _TRUTH.get(text.strip().lower(), text)
    return text.strip() if field.cpp_type != field.CPPTYPE_STRING else text


_TRUTH = {"true": True, "false": False}
_WHOLE = ("CPPTYPE_INT32", "CPPTYPE_INT64", "CPPTYPE_UINT32", "CPPTYPE_UINT64")


def _kind(field: Field) -> str:
    """Return which values are allowed, for messages."""
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return ", ".join(value.name.removeprefix(prefix).lower() for value in field.enum_type.values if value.number)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return "true or false"
    whole = field.cpp_type in [getattr(field, kind) for kind in _WHOLE]
    kind = "whole number" if whole else "number"
    return f"{kind}s with commas between" if field.is_repeated else f"a {kind}"
