"""Messages in the words of those who read them: `minmax` rather than SELECTION_MODE_MINMAX, and options as typed.

Services speak to any gRPC client, so that their messages name fields and constants of the contract. This is the one
place that turns them into what users of the SDK and the command line write.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from cellsparse import enum_names
from cellsparse.errors import CellsparseError
from cellsparse_proto.v1 import (
    access_pb2,
    common_pb2,
    dataset_pb2,
    orchestrator_pb2,
    project_pb2,
    prompter_pb2,
    rules_pb2,
    sparsifier_pb2,
    study_pb2,
    suggestion_pb2,
    trainer_pb2,
    upload_pb2,
)

_FILES = (
    access_pb2,
    common_pb2,
    dataset_pb2,
    orchestrator_pb2,
    project_pb2,
    prompter_pb2,
    rules_pb2,
    sparsifier_pb2,
    study_pb2,
    suggestion_pb2,
    trainer_pb2,
    upload_pb2,
)
# What is quoted was typed by somebody, and stays.
_WORD = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b[A-Z][A-Z0-9_]{2,}\b")
_ACRONYMS = frozenset({"ONNX", "ROI", "TIFF", "GPU", "CPU", "TPU", "CUDA", "GEOJSON", "COCO", "IMAGE", "LABEL"})


def as_typed(text: str) -> str:
    """Return a message with the short names of constants: "SPLIT_VAL" and "VAL" become "val"."""
    short = _short_names()
    return _WORD.sub(lambda found: short.get(found[0], found[0]), text)


def with_options(text: str, options: Mapping[str, str]) -> str:
    """Return a message in which fields at fault are called as they were typed.

    Args:
        text: "total_percent is 0; allowed: above 0 to 100."
        options: Options by the name of the field: {"total_percent": "--percent"}.
    """
    if not options:
        return text
    names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    # At the beginning of a sentence, where services put the field: "the port is in use" is about something else.
    fields = re.compile(rf"(?:^|(?<=\. ))(?:[a-z_]+\.)*({names})(?= (?:is|are|has|holds|must)\b)")
    return fields.sub(lambda found: options[found[1]], text)


def reworded(error: CellsparseError, words: Callable[[str], str] = as_typed) -> CellsparseError:
    """Change the words of an error, and return it."""
    error.message = words(error.message)
    error.args = (error.message,)
    error.violations = [(field, words(description)) for field, description in error.violations]
    return error


@cache
def _short_names() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in _FILES:
        messages: Iterable[object] = file.DESCRIPTOR.message_types_by_name.values()
        for enum in [*file.DESCRIPTOR.enum_types_by_name.values(), *_nested(messages)]:
            for value in enum.values:
                short = enum_names.name(enum, value.number) or "none"
                found[value.name] = short
                if value.number and short.upper() not in _ACRONYMS:
                    found[short.upper()] = short
    return found


def _nested(messages: Iterable[enum_names.EnumDescriptor]) -> list[enum_names.EnumDescriptor]:
    return [enum for message in messages for enum in message.enum_types]
