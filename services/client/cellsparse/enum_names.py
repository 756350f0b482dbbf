"""Short names of enum values ("minmax", "succeeded"), and messages as plain values, both read from descriptors."""

import math
from typing import Any, TypeAlias

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cellsparse.errors import InvalidArgument

# protobuf's type stubs know two unrelated classes for each kind of descriptor, and extensions of neither.
EnumDescriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any


def name(enum: EnumDescriptor, number: int) -> str:
    """Return the short name of an enum value: RUN_STATE_QUEUED is "queued", the 0 value is ""."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    return str(value.name).removeprefix(_prefix(enum)).lower() if number else ""


def names(enum: EnumDescriptor) -> list[str]:
    """Return the short names of an enum, in their order, without the 0 value."""
    return [name(enum, value.number) for value in enum.values if value.number]


def number(enum: EnumDescriptor, value: str | int, field: str) -> Any:
    """Return the enum number that a short name, a full name or a number stands for.

    Args:
        enum: The enum.
        value: "minmax", "SELECTION_MODE_MINMAX" or 3.
        field: The setting's name, for the error.

    Raises:
        InvalidArgument: The enum has no such value.
    """
    if isinstance(value, int) and value in enum.values_by_number:
        return value
    full = str(value).upper().replace("-", "_")
    for candidate in (full, _prefix(enum) + full):
        if candidate in enum.values_by_name:
            return enum.values_by_name[candidate].number
    raise InvalidArgument(f"{field} is {str(value)!r}; allowed: {', '.join(names(enum))}.", field)


def plain(message: Message) -> dict[str, Any]:
    """Return a message as values that JSON knows.

    Numbers stay numbers, enums become short names, timestamps ISO 8601 in UTC, NaN and missing messages None. Settings
    that are not set are left out.
    """
    shown: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            if field.message_type is not None and field.containing_oneof is None:
                shown[field.name] = None
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of_value = field.message_type.fields_by_name["value"]
            shown[field.name] = {str(key): _value(of_value, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            shown[field.name] = [_value(field, entry) for entry in value]
        else:
            shown[field.name] = _value(field, value)
    return shown


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return name(field.enum_type, value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _prefix(enum: EnumDescriptor) -> str:
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")
