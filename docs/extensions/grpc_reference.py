"""The gRPC reference: services, messages and enums of a proto file with their comments and field rules."""

import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from cellsparse_proto.v1 import rules_pb2

ROOT = Path(__file__).parents[2]
PACKAGE = ".cellsparse.v1."
PROTOC_SECONDS = 300
Location = tuple[int, ...]
"""A place in a file: numbers of fields and indices, see SourceCodeInfo in descriptor.proto."""
Comments = dict[Location, str]
# Numbers of the fields in descriptor.proto: source locations are paths of these.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _METHODS, _VALUES = 2, 2, 2
_MARKUP = re.compile(r"[\\*_<>\[\]$]")


def proto(name: str) -> str:
    """Return the reference of one file of `proto/cellsparse/v1`, as Markdown.

    Args:
        name: Its name without suffix, such as "trainer".
    """
    file = _files()[f"cellsparse/v1/{name}.proto"]
    comments = {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }
    parts = [_service(service, (_SERVICES, index), comments) for index, service in enumerate(file.service)]
    parts += [_message(message, (_MESSAGES, index), comments) for index, message in enumerate(file.message_type)]
    parts += [_enum(enum, (_ENUMS, index), comments) for index, enum in enumerate(file.enum_type)]
    return "\n\n".join(parts)


@cache
def _files() -> dict[str, FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        arguments = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={out}",
            *sorted(str(path) for path in (ROOT / "proto" / "cellsparse" / "v1").glob("*.proto")),
        ]
        # In a process of its own: beside TensorFlow, which brings another protobuf, protoc ends this one.
        subprocess.run(arguments, check=True, timeout=PROTOC_SECONDS)
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in found.file}


def _service(service: ServiceDescriptorProto, path: Location, comments: Comments) -> str:
    rows = []
    for index, method in enumerate(service.method):
        asks = f"{'stream of ' if method.client_streaming else ''}{_link(method.input_type)}"
        answers = f"{'stream of ' if method.server_streaming else ''}{_link(method.output_type)}"
        does = _cell(comments[*path, _METHODS, index])
        rows.append(f"| `{method.name}` | {asks} | {answers} | {_who(method)} | {does} |")
    table = ["| Method | Request | Response | Who may | What it does |", "|---|---|---|---|---|", *rows]
    return _entry(service.name, comments[path], table)


def _who(method: MethodDescriptorProto) -> str:
    """Return the lowest role that may make a call; in their own project, if it is about a project's things."""
    rule = method.options.Extensions[rules_pb2.call]
    if rule.scope == rules_pb2.SCOPE_SERVICES:
        return "services"
    return rules_pb2.Role.Name(rule.role).removeprefix("ROLE_").lower()


def _message(message: DescriptorProto, path: Location, comments: Comments) -> str:
    if not message.field:
        return _entry(message.name, comments[path], [])
    maps = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    rows = []
    for index, field in enumerate(message.field):
        meaning = _cell(comments.get((*path, _FIELDS, index), ""))
        if field.HasField("oneof_index") and not field.proto3_optional:
            meaning = f"(one of `{message.oneof_decl[field.oneof_index].name}`) {meaning}"
        rows.append(f"| `{field.name}` | {_type(field, maps)} | {_rules(field)} | {meaning} |")
    return _entry(message.name, comments[path], ["| Field | Type | Rules | Meaning |", "|---|---|---|---|", *rows])


def _enum(enum: EnumDescriptorProto, path: Location, comments: Comments) -> str:
    rows = [
        f"| `{value.name}` | {value.number} | {_cell(comments.get((*path, _VALUES, index), ''))} |"
        for index, value in enumerate(enum.value)
    ]
    return _entry(enum.name, comments[path], ["| Value | Number | Meaning |", "|---|---|---|", *rows])


def _entry(name: str, comment: str, table: list[str]) -> str:
    return "\n".join([f"({_target(name)})=", "", f"## {name}", "", _prose(comment), "", *table])


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_type(entry.field[0], {})} to {_type(entry.field[1], {})}"
    name = _link(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _rules(field: FieldDescriptorProto) -> str:
    rules = field.options.Extensions[rules_pb2.rules]
    found = ["required"] if rules.required else []
    for name, text in (("min", "from {:,.9g}"), ("above", "above {:,.9g}"), ("max", "up to {:,.9g}")):
        if rules.HasField(name):
            found.append(text.format(getattr(rules, name)))
    if rules.multiple_of:
        found.append(f"multiple of {rules.multiple_of}")
    allowed = getattr(rules, "in")
    if allowed:
        found.append("one of " + ", ".join(str(value) for value in allowed))
    if rules.pattern:
        found.append(f"matches `{_cell(rules.pattern, prose=False)}`")
    counts = (
        ("min_items", "{:,} entries or more"),
        ("max_items", "{:,} entries at most"),
        ("max_length", "length up to {:,}"),
    )
    found += [text.format(getattr(rules, name)) for name, text in counts if getattr(rules, name)]
    return ", ".join(found)


def _link(type_name: str) -> str:
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.lstrip('.')}`"
    name = type_name.removeprefix(PACKAGE)
    return f"[{name}](#{_target(name)})"


def _target(name: str) -> str:
    return f"proto-{name.lower()}"


def _cell(text: str, *, prose: bool = True) -> str:
    return (_prose(text) if prose else text).replace("|", r"\|")


def _prose(text: str) -> str:
    """Return a comment as Markdown that shows it as it is written; what stands in backquotes is code already."""
    parts = text.split("`")
    return "`".join(_MARKUP.sub(r"\\\g<0>", part) if index % 2 == 0 else part for index, part in enumerate(parts))
