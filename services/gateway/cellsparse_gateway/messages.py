"""Protocol buffers as JSON and back.

As protobuf's own JSON format with field names as in the protos, except that 64-bit whole numbers are JSON numbers:
JavaScript holds them exactly up to 2**53, which counts of pixels and revisions do not reach.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cellsparse_common.errors import InvalidArgument

M = TypeVar("M", bound=Message)
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as a JSON object. Fields with presence that are not set are left out."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        result[field.name] = _field(getattr(message, field.name), field)
    return result


def _field(value: Any, field: Any) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {str(key): _value(value[key], entry) for key in value}
    if field.is_repeated:
        return [_value(item, field) for item in value]
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return value.ToJsonString() if isinstance(value, Timestamp) else to_json(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named is not None else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field.cpp_type in _FLOATS and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def from_json(kind: type[M], content: Any, **given: Any) -> M:
    """Return a message from a JSON object.

    Args:
        kind: The message's class.
        content: A JSON object.
        given: Fields that the address of the request names; they replace those of the object.

    Raises:
        InvalidArgument: A sentence about the first thing that does not fit. The orchestrator checks field rules.
    """
    if not isinstance(content, Mapping):
        raise InvalidArgument("The body must be a JSON object.")
    message = kind()
    try:
        json_format.ParseDict({**content, **given}, message)
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"The body does not fit: {' '.join(str(error).split())[:500]}.") from None
    return message


def enum_number(enum: Any, text: str, field: str) -> Any:
    """Return the number of an enum's value by its name, in full or without its prefix and in any case.

    Args:
        enum: Descriptor of the enum.
        text: Such as "PRESET_FAST" or "fast"; empty: 0.
        field: Named in the error.

    Raises:
        InvalidArgument: The enum has no such value.
    """
    if not text:
        return 0
    prefix = _prefix(enum)
    word = text.upper().removeprefix(prefix)
    value = enum.values_by_name.get(prefix + word)
    if value is None or value.number == 0:
        raise InvalidArgument(f"{field} is {text[:80]!r}; allowed: {', '.join(enum_words(enum))}.", field)
    return value.number


def enum_words(enum: Any) -> list[str]:
    """Return the short names of an enum's values, such as "fast"."""
    prefix = _prefix(enum)
    return [value.name.removeprefix(prefix).lower() for value in enum.values if value.number]


def _prefix(enum: Any) -> str:
    zero = next(value.name for value in enum.values if value.number == 0)
    return str(zero.removesuffix("UNSPECIFIED"))
