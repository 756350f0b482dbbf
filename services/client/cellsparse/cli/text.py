"""What was typed, and what is printed: text without what no terminal, server or file system takes."""

from collections.abc import Callable
from typing import Any, Protocol

from cellsparse.errors import CellsparseError, InvalidArgument
from cellsparse.words import as_typed, reworded, with_options

_FIELDS = {
    "total_percent": "percent",
    "background_distance": "distance",
    "initial_model": "start",
    "max_images": "images",
    "ious": "iou",
}
"""Fields of requests whose options have other names."""


class Context(Protocol):
    """A command that is about to run, as click knows it."""

    params: dict[str, Any]
    command: Any


def printable(text: str) -> str:
    """Return a text that any stream takes; bytes that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def refuse_nul(arguments: list[str]) -> None:
    """Refuse arguments with a NUL character, which no name and no path has.

    Raises:
        InvalidArgument: One has it.
    """
    for argument in arguments:
        if "\0" in argument:
            raise InvalidArgument(f"An argument holds a NUL character: {argument!r}.")


def guard(command: Any) -> None:
    """Make a command, and all below it, look at what was typed before it runs."""
    for below in getattr(command, "commands", {}).values():
        guard(below)
    if not hasattr(command, "commands") and not hasattr(command, "is_guarded"):
        command.invoke, command.is_guarded = _checked(command.invoke), True


def _checked(invoke: Callable[[Context], Any]) -> Callable[[Context], Any]:
    def check(context: Context) -> Any:
        for parameter in context.command.params:
            value = context.params.get(parameter.name)
            for each in value if isinstance(value, list | tuple) else [value]:
                _check(each, parameter)
        try:
            return invoke(context)
        except CellsparseError as error:
            options = _options(context.command)
            reworded(error, lambda text: with_options(as_typed(text), options))
            raise

    return check


def _options(command: Any) -> dict[str, str]:
    """Return a command's options by the names that fields of requests have."""
    options = {each.name: each.opts[0] for each in command.params if each.opts[0].startswith("--")}
    return options | {field: options[name] for field, name in _FIELDS.items() if name in options}


def _check(value: object, parameter: Any) -> None:
    """Refuse text that has no letters for some of its bytes; paths may be of any.

    Raises:
        InvalidArgument: It is such a value.
    """
    if not isinstance(value, str):
        return
    called = parameter.opts[0] if parameter.opts[0].startswith("-") else str(parameter.name).upper()
    is_path = parameter.type.name == "path" or "FILE" in (parameter.metavar or "")
    if not is_path and printable(value) != value:
        raise InvalidArgument(f"{called} is {value!r}, which is no text in UTF-8.")
