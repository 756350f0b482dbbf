"""Search spaces: ranges and lists of values of training settings, checked by the rules of the protos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor as Kind

from cellsparse import enum_names
from cellsparse.enum_names import FieldDescriptor
from cellsparse.errors import InvalidArgument
from cellsparse.training_settings import backends, describe, setting_text, training_fields, training_settings
from cellsparse_common.rpc.rules import rules_of

LOG = ":log"
BETWEEN = ".."
EXPECTED = "KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C, such as learning_rate=1e-5..1e-2:log"

_REAL = {Kind.CPPTYPE_DOUBLE, Kind.CPPTYPE_FLOAT}
_WORDS = {Kind.CPPTYPE_ENUM, Kind.CPPTYPE_BOOL, Kind.CPPTYPE_STRING}


@dataclass(frozen=True, kw_only=True)
class Range:
    """All numbers between two."""

    name: str
    """The setting."""
    low: float
    """Smallest, included."""
    high: float
    """Largest, included."""
    log: bool
    """Whether equal ratios are equally likely, in place of equal distances."""
    step: int
    """Distance of whole numbers, from 1; 0: any number."""

    def text(self) -> str:
        """Return the range as `parse_axis` takes it."""
        return f"{self.low!r}{BETWEEN}{self.high!r}{LOG if self.log else ''}"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A list of values, in no order."""

    name: str
    """The setting."""
    values: tuple[bool | int | float | str, ...]
    """Two values or more."""

    def text(self) -> str:
        """Return the values as `parse_axis` takes them."""
        return ";".join(map(setting_text, self.values))


Axis: TypeAlias = Range | Choices


def parse_pairs(backend: str, pairs: Sequence[str]) -> tuple[Axis, ...]:
    """Return the axes that texts such as "batch_size=2,4,8" stand for (see `parse_axis`).

    Raises:
        InvalidArgument: One is not KEY=..., or is no axis, or a setting is there twice.
    """
    axes: dict[str, Axis] = {}
    for pair in pairs:
        key, equals, values = pair.partition("=")
        if not (key.strip() and equals and values.strip()):
            raise InvalidArgument(f"over is {pair!r}; expected {EXPECTED}.", "over")
        axis = parse_axis(backend, key.strip(), values)
        if axis.name in axes:
            raise InvalidArgument(f"over names {axis.name} twice; give all its values at once.", "over")
        axes[axis.name] = axis
    return tuple(axes.values())


def parse_axis(backend: str, key: str, values: str | Sequence[Any]) -> Axis:
    """Return one axis.

    Args:
        backend: The backend that trains.
        key: A setting, common or the backend's own; "unet.base_channels" is the same as "base_channels".
        values: "1e-5..1e-2", "1e-5..1e-2:log", "2,4,8", or a sequence of values; values that hold commas themselves
            are separated by semicolons.

    Raises:
        InvalidArgument: An unknown setting, or a value that it cannot have; names what is allowed.
    """
    name = _name(backend, key)
    field = training_fields(backend).get(name)
    if field is None:
        training_settings(backend, {name: ""})  # says which there are
        raise AssertionError(name)
    if isinstance(values, str) and BETWEEN in values:
        return _range(backend, field, values)
    entries = _split(values) if isinstance(values, str) else list(values)
    found = [_typed(backend, field, entry) for entry in entries]
    if len(found) < 2 or len(set(map(repr, found))) < len(found):
        given = ",".join(map(setting_text, entries))
        raise InvalidArgument(f"{name} is to be searched over {given!r}; give two different values or more.", name)
    return Choices(name=name, values=tuple(found))


def _name(backend: str, key: str) -> str:
    owner, dot, name = key.rpartition(".")
    if not dot:
        return name
    if owner == backend:
        return key if key in training_fields(backend) else name
    known = f"this search trains {backend}" if owner in backends() else f"allowed before the dot: {backend}"
    raise InvalidArgument(f"over is for the setting {key!r}, but {known}.", "over")


def _range(backend: str, field: FieldDescriptor, text: str) -> Range:
    name = str(field.name)
    if field.is_repeated or field.cpp_type in _WORDS or getattr(rules_of(field), "in"):
        raise InvalidArgument(f"{name} is {text!r}, but takes no range; give values, of {describe(field)}.", name)
    log = text.strip().endswith(LOG)
    low, high = (
        _typed(backend, field, end.strip()) for end in text.strip().removesuffix(LOG).split(BETWEEN, maxsplit=1)
    )
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    step = 0 if field.cpp_type in _REAL else max(1, int(rules_of(field).multiple_of))
    if not low < high:
        raise InvalidArgument(f"{name} is {text!r}; the first number must be below the second.", name)
    if log and low <= 0:
        raise InvalidArgument(f"{name} is {text!r}; with {LOG} the first number must be above 0.", name)
    if log and step > 1:
        raise InvalidArgument(f"{name} is {text!r}; with {LOG} it cannot be a multiple of {step}, give values.", name)
    return Range(name=name, low=low, high=high, log=log, step=step)


def _typed(backend: str, field: FieldDescriptor, value: Any) -> bool | int | float | str:
    """Return a value as a run's settings hold it; raises InvalidArgument."""
    made = training_settings(backend, {field.name: value})
    holder = made if field.containing_type is made.DESCRIPTOR else getattr(made, backend)
    if field.is_repeated:
        return setting_text(value)
    held: Any = getattr(holder, field.name)
    return enum_names.name(field.enum_type, held) if field.enum_type is not None else held


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";" if ";" in text else ",") if part.strip()]
