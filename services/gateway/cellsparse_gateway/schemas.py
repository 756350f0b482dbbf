"""JSON Schemas (OpenAPI 3.1) from the descriptors of the protos, with the patterns and ranges of their field rules."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cellsparse_common.rpc.rules import WHOLE_NUMBERS, rules_of

_REF = "#/components/schemas/"
_TIMESTAMP = "google.protobuf.Timestamp"
_LARGEST = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence."},
        "errors": {
            "type": "array",
            "description": "Fields at fault.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["field", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}


def message_schema(descriptor: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the schema of a message.

    Args:
        descriptor: The message's descriptor.
        without: Fields to leave out, because the address names them.
    """
    left_out = set(without)
    fields = [field for field in descriptor.fields if field.name not in left_out]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: field_schema(field) for field in fields},
        "additionalProperties": False,
    }
    required = [field.name for field in fields if rules_of(field).required]
    return {**schema, "required": required} if required else schema


def field_schema(field: Any) -> dict[str, Any]:
    """Return the schema of a field, with the rules that JSON Schema can say."""
    rules = rules_of(field)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(kind.fields_by_name["value"], rules)}
    if not field.is_repeated:
        return _value(field, rules)
    schema: dict[str, Any] = {"type": "array", "items": _value(field, rules)}
    if rules.min_items:
        schema["minItems"] = rules.min_items
    if rules.max_items:
        schema["maxItems"] = rules.max_items
    return schema


def _value(field: Any, rules: Any) -> dict[str, Any]:
    if field.message_type is not None:
        if field.message_type.full_name == _TIMESTAMP:
            return {"type": "string", "format": "date-time"}
        return {"$ref": _REF + field.message_type.name}
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(rules)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    return _number(field, rules)


def _text(rules: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if rules.pattern:
        # An empty string is checked for `required` only.
        schema["pattern"] = f"^({rules.pattern})$" if rules.required else f"^({rules.pattern})?$"
    if rules.max_length:
        schema["maxLength"] = rules.max_length
    if rules.required:
        schema["minLength"] = 1
    return schema


def _number(field: Any, rules: Any) -> dict[str, Any]:
    whole = field.cpp_type in WHOLE_NUMBERS
    schema: dict[str, Any] = {"type": "integer" if whole else "number"}
    cast = int if whole else float
    if whole:
        schema["minimum"], schema["maximum"] = _LARGEST[field.cpp_type]
    if rules.HasField("min"):
        schema["minimum"] = cast(rules.min)
    if rules.HasField("max"):
        schema["maximum"] = cast(rules.max)
    if rules.HasField("above"):
        schema["exclusiveMinimum"] = rules.above
    if rules.multiple_of:
        schema["multipleOf"] = rules.multiple_of
    allowed = getattr(rules, "in")
    return {**schema, "enum": list(allowed)} if allowed else schema


class Schemas:
    """The schemas that the routes of one application use, and everything they refer to."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}

    def ref(self, kind: type[Message] | Any) -> dict[str, Any]:
        """Return a reference to a message's schema, and keep the schema."""
        descriptor: Any = getattr(kind, "DESCRIPTOR", kind)
        if descriptor.name not in self._found:
            self._found[descriptor.name] = message_schema(descriptor)
            self._follow(descriptor)
        return {"$ref": _REF + descriptor.name}

    def without(self, kind: type[Message], *fields: str) -> dict[str, Any]:
        """Return the schema of a message without the fields that the address names."""
        descriptor: Any = kind.DESCRIPTOR
        self._follow(descriptor)
        return message_schema(descriptor, fields)

    def components(self) -> Mapping[str, Any]:
        """Return all schemas by name."""
        return {**self._found, "Problem": PROBLEM}

    def _follow(self, descriptor: Any) -> None:
        for field in descriptor.fields:
            kind = field.message_type
            if kind is None or kind.full_name == _TIMESTAMP:
                continue
            self.ref(kind.fields_by_name["value"].message_type or kind) if kind.GetOptions().map_entry else self.ref(
                kind
            )


def object_of(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them present."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(name: str, entry: Mapping[str, Any], *, paged: bool = True) -> dict[str, Any]:
    """Return the schema of a list's answer."""
    entries = {name: {"type": "array", "items": entry}}
    return object_of(**entries, **({"next_page_token": {"type": "string"}} if paged else {}))


def answers(schema: Mapping[str, Any] | None, status: int = 200, media: str = "application/json") -> dict[Any, Any]:
    """Return a route's `responses`: the good answer and problems.

    Args:
        schema: Of the body; None: there is no body.
        status: Of the good answer.
        media: Type of the body.
    """
    good: dict[str, Any] = {"description": "Done."}
    if schema is not None:
        good["content"] = {media: {"schema": dict(schema)}}
    problem = {"application/problem+json": {"schema": {"$ref": _REF + "Problem"}}}
    return {status: good, "default": {"description": "A problem.", "content": problem}}


FILE: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}


def takes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a route's `openapi_extra` for a JSON body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": dict(schema)}}}}


def takes_file(media: str = "application/octet-stream") -> dict[str, Any]:
    """Return a route's `openapi_extra` for a file as the body."""
    return {"requestBody": {"required": True, "content": {media: {"schema": FILE}}}}


def describe(app: FastAPI, schemas: Schemas, prefix: str) -> None:
    """Make the application's OpenAPI document from its routes below `prefix` and the schemas of the protos."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            made["paths"] = {path: _tidy(item) for path, item in made["paths"].items() if path.startswith(prefix)}
            made["components"] = {"schemas": dict(sorted(schemas.components().items()))}
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _tidy(item: dict[str, Any]) -> dict[str, Any]:
    """Leave out what FastAPI adds: its own answer to invalid requests, where ours are problems."""
    for operation in item.values():
        operation["responses"].pop("422", None)
    return item
