"""Tables of settings from the pydantic classes that read them: name, default, allowed values, meaning."""

import importlib
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PREFIX = "CELLSPARSE_"
_LIMITS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}", "min_length": "not empty"}


def environment(cls: str) -> str:
    """Return a table of environment variables.

    Args:
        cls: A settings class as "module:Class"; only the fields that it declares itself are listed.
    """
    prefix = _class(cls).model_config.get("env_prefix") or PREFIX

    def spell(name: str, info: FieldInfo) -> str:
        alias = info.validation_alias
        return f"`{alias if isinstance(alias, str) else prefix + name.upper()}`"

    return _table("Variable", cls, spell)


def yaml_keys(cls: str) -> str:
    """Return a table of keys of a YAML file; `cls` as for `environment`."""
    return _table("Key", cls, lambda name, _: f"`{name}`")


def _table(title: str, path: str, spell: Any) -> str:
    cls = _class(path)
    rows = [
        f"| {spell(field, info)} | {_default(info)} | {_allowed(info)} | {_one_line(info.description)} |"
        for field, info in cls.model_fields.items()
        if field in cls.__annotations__
    ]
    return "\n".join([f"| {title} | Default | Allowed | Meaning |", "|---|---|---|---|", *rows])


def _class(path: str) -> type[BaseModel]:
    module, _, name = path.partition(":")
    found: type[BaseModel] = getattr(importlib.import_module(module), name)
    return found


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "(required)"
    value = info.default
    if info.default_factory is not None:
        value = info.default_factory()  # type: ignore[call-arg]
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        value = ",".join(f"{key}={entry}" for key, entry in value.items())
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, Path):
        value = value.as_posix()
    if isinstance(value, str):
        value = value.replace(Path.home().as_posix(), "~")
    return "" if value in (None, PydanticUndefined, "", ()) else f"`{_cell(str(value))}`"


def _allowed(info: FieldInfo) -> str:
    kind = info.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{value.value}`" for value in kind)
    if kind is bool:
        return "`true`, `false`"
    found = []
    for limit in info.metadata:
        for attribute, text in _LIMITS.items():
            value = getattr(limit, attribute, None)
            if value is not None:
                found.append(text.format(f"{value:,.12g}"))
        pattern = getattr(limit, "pattern", None)
        if pattern:
            found.append(f"`{_cell(pattern)}`")
    return " ".join(found)


def _one_line(text: str | None) -> str:
    return _cell(" ".join((text or "").replace("``", "`").split()))


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
