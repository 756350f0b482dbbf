"""Requests of every RPC, made of the descriptors: random values, mutations of short valid ones, and broken bytes."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from support.access import request_of
from support.fuzz.files import hostile_file, valid_files_once

from cellsparse_proto.v1 import (
    access_pb2,
    admin_pb2,
    dataset_pb2,
    orchestrator_pb2,
    project_pb2,
    prompter_pb2,
    sparsifier_pb2,
    study_pb2,
    trainer_pb2,
)

_FILES = (access_pb2, admin_pb2, dataset_pb2, orchestrator_pb2, project_pb2, prompter_pb2, study_pb2)
ORCHESTRATOR: tuple[MethodDescriptor, ...] = tuple(
    method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
)
SPARSIFIER: tuple[MethodDescriptor, ...] = tuple(
    sparsifier_pb2.DESCRIPTOR.services_by_name["SparsifierService"].methods
)
TRAINER: tuple[MethodDescriptor, ...] = tuple(trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].methods)

Ids = Mapping[str, Sequence[str]]
"""Ids of things that are there, by the name of the field that names them."""
_DEPTH = 4
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 2, 7, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, -1, 2, 7, 2**63 - 1, -(2**63), 2**53),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2, 3, 16, 255, 65_536, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2, 3, 16, 255, 2**32, 2**63, 2**64 - 1),
}
_NUMBERS = (0.0, 1.0, -1.0, 0.5, 99.8, 1e-300, 3.4e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", "a", "word", "\0", "../../etc", "x" * 63, "x" * 9000, "Ä😀\u202e", "%s%n", "ds-missing", "' OR 1=1;--")
_TEXTS += ("YX",)


def hostile_messages(number: random.Random, method: MethodDescriptor, ids: Ids) -> list[bytes]:
    """Return the messages of a request as they go over the wire; a unary call's are one, mostly."""
    made = _short(number, method, ids)
    kind = number.random()
    if kind < 0.3:
        made = [_random(number, GetMessageClass(method.input_type)(), ids) for _ in made]
    elif kind < 0.8:
        for _ in range(number.randint(1, 3)):
            _change(number, number.choice(made), ids)
    if method.client_streaming and number.random() < 0.3:
        number.shuffle(made)
        made = made[: number.randint(0, len(made))] * number.choice((1, 1, 2))
    wire = [message.SerializeToString() for message in made]
    if wire and number.random() < 0.3:
        at = number.randrange(len(wire))
        wire[at] = _broken(number, wire[at])
    return wire


def _short(number: random.Random, method: MethodDescriptor, ids: Ids) -> list[Message]:
    """Return a request that is nearly valid, with the file of an upload or of a field."""
    one = {name: number.choice(some) for name, some in ids.items() if some}
    made = request_of(method, one)
    for message in made:
        for field in ("chunk", "image", "label", "encoder", "decoder"):
            each = message.DESCRIPTOR.fields_by_name.get(field)
            if each is not None and each.type == FieldDescriptor.TYPE_BYTES and getattr(message, field):
                setattr(message, field, _file(number))
    end = next((message for message in made if "end" in message.DESCRIPTOR.fields_by_name), None)
    if end is not None and end.HasField("end") and "size" in end.end.DESCRIPTOR.fields_by_name:
        end.end.size = sum(len(message.chunk) for message in made if hasattr(message, "chunk")) or 1
    return made


def _file(number: random.Random) -> bytes:
    names = sorted(valid_files_once())
    name = number.choice(names)
    return valid_files_once()[name] if number.random() < 0.3 else hostile_file(number, name)[: 2**20]


def _random(number: random.Random, message: Message, ids: Ids, depth: int = _DEPTH) -> Message:
    for each in message.DESCRIPTOR.fields:
        if number.random() < 0.6:
            _put(number, message, each, ids, depth)
    return message


def _change(number: random.Random, message: Message, ids: Ids) -> None:
    """Put something else into one field, here or further inside."""
    inner = [each for each, _ in message.ListFields() if each.message_type is not None and not each.is_repeated]
    if inner and number.random() < 0.6:
        _change(number, getattr(message, number.choice(inner).name), ids)
    elif message.DESCRIPTOR.fields:
        _put(number, message, number.choice(message.DESCRIPTOR.fields), ids, 2)


def _put(number: random.Random, message: Message, each: FieldDescriptor, ids: Ids, depth: int) -> None:
    if each.message_type is not None and (depth == 0 or each.message_type.GetOptions().map_entry):
        return
    if each.is_repeated:
        target = getattr(message, each.name)
        for _ in range(number.choice((0, 1, 1, 2, 3, 3, 40))):
            if each.message_type is not None:
                _random(number, target.add(), ids, depth - 1)
            else:
                target.append(_value(number, each, ids))
    elif each.message_type is not None:
        part = getattr(message, each.name)
        part.SetInParent()
        _random(number, part, ids, depth - 1)
    else:
        setattr(message, each.name, _value(number, each, ids))


def _value(number: random.Random, each: FieldDescriptor, ids: Ids) -> Any:
    if each.type == FieldDescriptor.TYPE_BYTES:
        return number.choice((b"", b"x", number.randbytes(100), _file(number)))
    if each.type == FieldDescriptor.TYPE_STRING:
        known = ids.get(each.name) or ids.get(each.name.removesuffix("s"))
        return number.choice(known) if known and number.random() < 0.7 else number.choice(_TEXTS)
    if each.type == FieldDescriptor.TYPE_BOOL:
        return number.random() < 0.5
    if each.type == FieldDescriptor.TYPE_ENUM:
        return number.choice((0, 1, 1, 2, 2, 3, 4, 99, -1, 2**31 - 1))
    return number.choice(_INTEGERS.get(each.cpp_type, _NUMBERS))


def _broken(number: random.Random, data: bytes) -> bytes:
    """Return bytes that are no such message, or just another one."""
    changed = bytearray(data)
    at = number.randrange(len(changed) + 1)
    kind = number.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1:  # also makes texts that are no UTF-8
        for _ in range(number.randint(1, 5)):
            if changed:
                changed[number.randrange(len(changed))] = number.choice((0xFF, 0xC0, 0x80, number.randrange(256)))
        return bytes(changed)
    if kind == 2:  # a length or number of many bytes
        return data[:at] + b"\xff" * number.choice((4, 9, 10, 11)) + b"\x01" + data[at:]
    if kind == 3:  # an unknown field
        return data + b"\xfa\x7f\x03abc"
    if kind == 4:  # messages within messages
        for _ in range(number.choice((20, 90, 200))):
            size, length = len(changed), bytearray()
            while size > 127:
                length.append(size % 128 + 128)
                size //= 128
            changed = bytearray([number.choice((0x0A, 0x12, 0x1A, 0x22))]) + length + bytes([size]) + changed
        return bytes(changed)
    if kind == 5:
        return number.randbytes(number.choice((1, 3, 50, 4000)))
    return data[:at] + data[: number.randrange(len(data) + 1)] + data[at:]
