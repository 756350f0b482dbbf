"""The field rules of the protos (see `proto/cellsparse/v1/rules.proto`): the one engine of servers and clients.

Servers check whole requests with `violations`. Clients check single fields and numbers, and describe
with `allowed_numbers` what a field accepts.

protovalidate could serve. Version 2 runs on protobuf-py, another implementation of protocol buffers than the one that
gRPC's generated code uses; look at it again with every upgrade.
"""

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cellsparse_proto.v1 import rules_pb2

# The stubs type extensions as bare descriptors, which `Extensions[...]` does not take.
_RULES: Any = rules_pb2.rules
_REQUIRED_ONEOF: Any = rules_pb2.required_oneof
_BY_NAME_ONLY: Any = rules_pb2.by_name_only
_WEIGHTS_TERMS: Any = rules_pb2.weights_terms

WHOLE_NUMBERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
"""Kinds of fields that hold whole numbers."""
_NUMBERS = WHOLE_NUMBERS | {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}


def violations(message: Message) -> list[tuple[str, str]]:
    """Return every rule that a message breaks, in field order.

    Args:
        message: Any message of the Cellsparse protos.

    Returns:
        (field path, sentence) pairs; paths as in `google.rpc.BadRequest`, such as "settings.k" or "splits[2]". Empty if
        the message is good.
    """
    return list(_message(message, ""))


def field_violations(message: Message, field: Any) -> list[tuple[str, str]]:
    """Return every rule that one field of a message breaks, as `violations` does for all of them.

    Args:
        message: Any message of the Cellsparse protos.
        field: Descriptor of one of its fields.
    """
    return list(_field(message, field, field.name))


def rules_of(field: Any) -> Any:
    """Return the rules that the proto gives a field, a `FieldRules`."""
    return field.GetOptions().Extensions[_RULES]


def usual_members(oneof: Any) -> list[str]:
    """Return the names of a oneof's members without those that are chosen by name only."""
    return [field.name for field in oneof.fields if not field.GetOptions().Extensions[_BY_NAME_ONLY]]


def weights_terms(field: Any) -> str:
    """Return what people should know about the terms of the weights that a backend starts from; empty for nothing.

    Args:
        field: Descriptor of the backend's field in `TrainingSettings`.
    """
    return str(field.GetOptions().Extensions[_WEIGHTS_TERMS])


def allowed_numbers(field: Any) -> str:
    """Return in words which numbers a field takes: "32 to 2048, multiples of 16", "above 0 to 1", "1, 2, 4"."""
    rules = rules_of(field)
    listed = getattr(rules, "in")
    if listed:
        return ", ".join(map(str, listed))
    whole = field.cpp_type in WHOLE_NUMBERS
    parts = [f"above {rules.above:.12g}"] if rules.HasField("above") else []
    if rules.HasField("min") or (whole and not parts):
        parts.append(f"{rules.min:.12g}")
    if rules.HasField("max"):
        parts.append(f"to {rules.max:.12g}")
    elif whole:
        parts.append("or more")
    if rules.multiple_of:
        parts[-1] += f", multiples of {rules.multiple_of}"
    return " ".join(parts) or "any finite number"


def takes_number(field: Any, value: float) -> bool:
    """Whether a number keeps the rules of a field."""
    rules = rules_of(field)
    low = rules.min if rules.HasField("min") else -math.inf
    high = rules.max if rules.HasField("max") else math.inf
    above = rules.above if rules.HasField("above") else -math.inf
    listed = getattr(rules, "in")
    inside = math.isfinite(value) and low <= value <= high and value > above
    return inside and not (rules.multiple_of and value % rules.multiple_of) and not (listed and value not in listed)


def _message(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for oneof in message.DESCRIPTOR.oneofs:
        if oneof.GetOptions().Extensions[_REQUIRED_ONEOF] and message.WhichOneof(oneof.name) is None:
            names = ", ".join(field.name for field in oneof.fields)
            yield prefix + oneof.name, f"{prefix}{oneof.name} is not set; set one of {names}."
    for field in message.DESCRIPTOR.fields:
        yield from _field(message, field, prefix + field.name)


def _field(message: Message, field: Any, path: str) -> Iterator[tuple[str, str]]:
    rules = rules_of(field)
    value: Any = getattr(message, field.name)
    if _is_map(field):
        yield from _count(len(value), rules, path)
    elif field.is_repeated:
        yield from _count(len(value), rules, path)
        for index, entry in enumerate(value):
            yield from _value(entry, field, rules, f"{path}[{index}]")
    elif field.has_presence and not message.HasField(field.name):
        if rules.required:
            yield path, f"{path} is missing."
    else:
        if rules.required and not field.has_presence and not value:
            allowed = f"; allowed: {', '.join(_names(field))}" if field.enum_type else ""
            yield path, f"{path} is missing{allowed}."
        else:
            yield from _value(value, field, rules, path)


def _value(value: Any, field: FieldDescriptor, rules: rules_pb2.FieldRules, path: str) -> Iterator[tuple[str, str]]:
    if field.message_type is not None:
        yield from _message(value, path + ".")
    elif field.enum_type is not None:
        if value not in field.enum_type.values_by_number:
            yield path, f"{path} is {value}, which is unknown; allowed: {', '.join(_names(field))}."
    elif field.cpp_type in _NUMBERS:
        if not takes_number(field, value):
            yield path, f"{path} is {value:g}; allowed: {allowed_numbers(field)}."
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield from _text(value, rules, path)


def _text(value: str | bytes, rules: rules_pb2.FieldRules, path: str) -> Iterator[tuple[str, str]]:
    unit = "bytes" if isinstance(value, bytes) else "characters"
    if rules.max_length and len(value) > rules.max_length:
        yield path, f"{path} has {len(value)} {unit}; allowed: at most {rules.max_length}."
    elif isinstance(value, str) and value and rules.pattern and not _pattern(rules.pattern).fullmatch(value):
        shown = value if len(value) <= 80 else value[:77] + "..."
        yield path, f"{path} is {shown!r}; allowed: text that matches {rules.pattern}."


def _count(count: int, rules: rules_pb2.FieldRules, path: str) -> Iterator[tuple[str, str]]:
    if count < rules.min_items:
        yield path, f"{path} has {count} entries; allowed: at least {rules.min_items}."
    if rules.max_items and count > rules.max_items:
        yield path, f"{path} has {count} entries; allowed: at most {rules.max_items}."


def _names(field: Any) -> list[str]:
    return [value.name for value in field.enum_type.values if value.number != 0]


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


@lru_cache(maxsize=64)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
