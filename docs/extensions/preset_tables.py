"""Tables of what the presets set, from the functions that resolve a training's settings."""

from collections.abc import Iterator
from typing import Any

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import BackendSpec, Config, installed_backends

IMAGES, MORE_IMAGES = 64, 640
"""Training images of the table, and another number that shows which values depend on it."""
_NOT_PRESET = {"preset", "seed", "device", "initial_model"}
PRESETS = {"paper": trainer_pb2.PRESET_PAPER, "fast": trainer_pb2.PRESET_FAST}


def presets() -> str:
    """Return a section with a table for every installed backend."""
    return "\n\n".join(f"### Presets of `{name}`\n\n{table(spec)}" for name, spec in installed_backends().items())


def table(backend: BackendSpec[Config]) -> str:
    """Return the table of a backend's settings: name, and the value in each preset, for images and for stacks.

    Values that the number of training images decides are marked.
    """
    columns = [_column(backend, preset, stacks) for stacks in (False, True) for preset in PRESETS.values()]
    lines = ["| Setting | `paper` | `fast` | `paper`, stacks | `fast`, stacks |", "|---|---|---|---|---|"]
    for name in columns[0]:
        values = [column[name] for column in columns]
        if any(values):
            lines.append(f"| `{name}` | {' | '.join(value or '' for value in values)} |")
    return "\n".join([*lines, "", f"\\* For {IMAGES} training images; the value depends on their number."])


def _column(backend: BackendSpec[Config], preset: int, stacks: bool) -> dict[str, str]:
    few, many = (dict(_values(backend, preset, stacks, images)) for images in (IMAGES, MORE_IMAGES))
    return {name: value + ("" if many[name] == value else r" \*") for name, value in few.items()}


def _values(backend: BackendSpec[Config], preset: int, stacks: bool, images: int) -> Iterator[tuple[str, str]]:
    settings = trainer_pb2.TrainingSettings(preset=preset)
    own = getattr(settings, backend.name)
    own.SetInParent()
    config = backend.light().resolve(settings, images, stacks)
    backends = {field.name for field in settings.DESCRIPTOR.oneofs_by_name["backend"].fields}
    for field in settings.DESCRIPTOR.fields:
        if field.name not in _NOT_PRESET | backends:
            yield field.name, _spell(_of_plan(config.plan, field.name))
    for field in own.DESCRIPTOR.fields:
        yield f"{backend.name}.{field.name}", _spell(getattr(config, field.name))


def _of_plan(plan: Any, name: str) -> Any:
    """Return a common setting; some have a shorter name in the plan than on the wire."""
    for spelling in (name, name.removesuffix("_steps"), name.replace("_every_", "_")):
        if hasattr(plan, spelling):
            return getattr(plan, spelling)
    raise AttributeError(f"the plan has no {name}")


def _spell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return ", ".join(_spell(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
