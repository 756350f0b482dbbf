"""The defaults of all training settings: `python -m cellsparse_trainer.defaults` prints them as Markdown tables.

They come from the installed backends themselves, which resolve settings without any. So they are written down once, in
each backend's presets.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.presets import PLAN_FIELDS
from cellsparse_trainer.contract import BackendSpec, Config, installed_backends

ITEMS = 20
"""Number of training items for defaults that depend on it."""
_PRESETS = {"FAST": trainer_pb2.PRESET_FAST, "PAPER": trainer_pb2.PRESET_PAPER}
_NOT_RESOLVED = frozenset({"preset", "initial_model"})
"""Settings that are no part of a configuration: they choose one."""
_PLAN_NAMES = {proto: name for name, proto in PLAN_FIELDS.items()}
_COLUMNS = 4
_HEADER = "| setting | images, FAST | images, PAPER | stacks, FAST | stacks, PAPER |\n|---|---|---|---|---|"


@dataclass(frozen=True, kw_only=True)
class Default:
    """The value that a backend takes for a setting that is not given."""

    backend: str
    """The backend's name."""
    setting: str
    """Name of the setting's field in the protos."""
    common: bool
    """Whether all backends have the setting."""
    preset: str
    """"FAST" or "PAPER"."""
    stacks: bool
    """Whether it is the default for stacks; else it is that for images."""
    value: Any
    """The value; None where there is none: data or device decide."""
    per_item: bool
    """Whether it depends on the number of training items; then `value` is that for `ITEMS`."""
    most: Any = None
    """The largest value, where it grows with the number and the variety of labelled cells from `value`."""


def defaults(spec: BackendSpec[Config]) -> Iterator[Default]:
    """Yield the defaults of a backend's settings, in the order of the proto's fields.

    A backend that refuses stacks has no defaults for them.
    """
    common = trainer_pb2.TrainingSettings.DESCRIPTOR
    own = getattr(trainer_pb2.TrainingSettings(), spec.name).DESCRIPTOR
    for stacks in (False, True):
        for preset in _PRESETS:
            try:
                few, many = (_resolve(spec, preset, items, stacks) for items in (ITEMS, 2 * ITEMS))
            except ValueError:
                if not stacks:
                    raise
                continue
            for field in filter(_is_setting, (*common.fields, *own.fields)):
                shared = field.containing_type is common
                name = _PLAN_NAMES.get(field.name, field.name) if shared else field.name
                value, other = ((config["plan"] if shared else config)[name] for config in (few, many))
                yield Default(
                    backend=spec.name,
                    setting=field.name,
                    common=shared,
                    preset=preset,
                    stacks=stacks,
                    value=value,
                    per_item=value != other,
                    most=few["plan"]["most_steps"] or None if field.name == "steps" else None,
                )


def tables() -> str:
    """Return the defaults of all installed backends as Markdown: a heading and a table for each."""
    return "\n".join(_table(spec) for spec in installed_backends().values())


def _is_setting(field: Any) -> bool:
    return field.message_type is None and field.name not in _NOT_RESOLVED


def _resolve(spec: BackendSpec[Config], preset: str, items: int, stacks: bool) -> dict[str, Any]:
    settings = trainer_pb2.TrainingSettings(preset=_PRESETS[preset])
    getattr(settings, spec.name).SetInParent()
    found: dict[str, Any] = json.loads(spec.light().resolve(settings, items, stacks=stacks).to_json())
    return found


def _table(spec: BackendSpec[Config]) -> str:
    rows: dict[str, list[str]] = {}
    shared = {field.name for field in trainer_pb2.TrainingSettings.DESCRIPTOR.fields}
    for default in defaults(spec):
        twice = not default.common and default.setting in shared
        rows.setdefault(f"{spec.name}.{default.setting}" if twice else default.setting, []).append(_text(default))
    lines = [
        f"| `{setting}` | {' | '.join([*values, *['-'] * (_COLUMNS - len(values))])} |"
        for setting, values in rows.items()
    ]
    return "\n".join([f"## {spec.name}", "", _HEADER, *lines, ""])


def _text(default: Default) -> str:
    value = default.value
    if value is None or value == []:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    text = ", ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value)
    if default.most:
        return f"{text} to {default.most} (by labelled cells and images)"
    return f"{text} (with {ITEMS} items)" if default.per_item else text


if __name__ == "__main__":
    sys.stdout.write(tables())
