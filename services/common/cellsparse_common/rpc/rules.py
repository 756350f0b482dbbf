"""Enforces the field rules that stand in the protos (see `proto/cellsparse/v1/rules.proto`)."""

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

_NUMBERS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE} | {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}


def violations(message: Message) -> list[tuple[str, str]]:
    """Return every rule that a message breaks, in field order.

    Args:
        message: Any message of the Cellsparse protos.

    Returns:
        (field path, sentence) pairs; paths as in `google.rpc.BadRequest`, such as "settings.k" or "splits[2]". Empty if
        the message is good.
    """
    return list(_message(message, ""))


def _message(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for oneof in message.DESCRIPTOR.oneofs:
        if oneof.GetOptions().Extensions[_REQUIRED_ONEOF] and message.WhichOneof(oneof.name) is None:
            names = ", ".join(field.name for field in oneof.fields)
            yield prefix + oneof.name, f"{prefix}{oneof.name} is not set; set one of {names}."
    for field in message.DESCRIPTOR.fields:
        yield from _field(message, field, prefix + field.name)


def _field(message: Message, field: Any, path: str) -> Iterator[tuple[str, str]]:
    rules = _rules(field)
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
        yield from _number(value, rules, path)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield from _text(value, rules, path)


def _number(value: float, rules: rules_pb2.FieldRules, path: str) -> Iterator[tuple[str, str]]:
    low = rules.min if rules.HasField("min") else -math.inf
    high = rules.max if rules.HasField("max") else math.inf
    above = rules.above if rules.HasField("above") else -math.inf
    listed = getattr(rules, "in")
    inside = math.isfinite(value) and low <= value <= high and value > above
    if not inside or (rules.multiple_of and value % rules.multiple_of) or (listed and value not in listed):
        yield path, f"{path} is {value:g}; allowed: {_range(rules)}."


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


def _range(rules: rules_pb2.FieldRules) -> str:
    listed = getattr(rules, "in")
    if listed:
        return ", ".join(str(number) for number in listed)
    parts = [f"multiples of {rules.multiple_of}"] if rules.multiple_of else []
    if rules.HasField("above"):
        parts.append(f"above {rules.above:g}")
    if rules.HasField("min"):
        parts.append(f"from {rules.min:.12g}")
    if rules.HasField("max"):
        parts.append(f"to {rules.max:.12g}")
    return " ".join(parts) or "finite numbers"


def _names(field: Any) -> list[str]:
    return [value.name for value in field.enum_type.values if value.number != 0]


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _rules(field: FieldDescriptor) -> rules_pb2.FieldRules:
    rules: rules_pb2.FieldRules = field.GetOptions().Extensions[_RULES]
    return rules


@lru_cache(maxsize=64)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
