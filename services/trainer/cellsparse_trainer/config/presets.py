"""Resolving settings: the defaults of a preset, and over them every setting that is given."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.plan import Plan

_COMMON: dict[str, Any] = {
    "channel": None,
    "minutes": None,
    "checkpoint_seconds": 300.0,
    "num_workers": None,
    "nodes": 1,
    "min_nodes": None,
    "processes_per_node": 1,
    "rate_scaling": "square_root",
    "gradient_format": "float32",
    "colour_shift": 0.0,
    "copy_paste": 0,
    "compile_step": False,
    "pinned_prefetch": False,
    "device_augmentation": False,
}
"""Defaults that the presets of all backends share. Which channels are meant depends on the images: `channel_choice`."""

_NO_SETTINGS = ("most_steps", "steps_power")
"""Fields of `Plan` that a preset decides and nobody can set."""

PLAN_FIELDS = {
    "validate_every": "validate_every_steps",
    "checkpoint_every": "checkpoint_every_steps",
    "checkpoint_seconds": "checkpoint_every_seconds",
}
"""Names of fields in the proto by their names in `Plan`, where these differ."""


def overlay(defaults: Mapping[str, Any], message: Message, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return defaults with every setting that is given in their place.

    Args:
        defaults: Values by name.
        message: Settings, with a field for every name; a field that is not set, the 0 value of an enum and an empty
            list are not given. Enum values become texts: INSTANCE_METHOD_AUTO is "auto"; lists become tuples.
        names: Names of fields in `message`, for those that have another name there.
    """
    given = {name: _given(message, (names or {}).get(name, name)) for name in defaults}
    return {name: default if given[name] is None else given[name] for name, default in defaults.items()}


def make_plan(settings: trainer_pb2.TrainingSettings, defaults: Mapping[str, Any]) -> Plan:
    """Return the plan of a run: a preset's defaults and, over them, the common settings that are given.

    The warm-up of a short run with a cosine takes at most a quarter of its steps, unless its length is given.

    Args:
        settings: The settings of the request.
        defaults: Fields of `Plan` by name. Fields that all backends share may be left out, as may seed and device.
            `most_steps` and `steps_power`, which are no settings, belong to a preset whose steps grow with the data.

    Raises:
        ValueError: A value is outside its range.
    """
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    by_preset = {"patience": 0 if paper else 10, "precision": "auto"}
    of_preset = {name: defaults[name] for name in _NO_SETTINGS if name in defaults}
    may_be_given = {name: value for name, value in defaults.items() if name not in _NO_SETTINGS}
    chosen = overlay({**_COMMON, **by_preset, **may_be_given}, settings, PLAN_FIELDS)
    if paper and chosen["precision"] == "auto":
        chosen["precision"] = "float32"  # the protocol's, whatever the device could do
    if chosen["schedule"] == "cosine" and not settings.HasField("warmup_steps"):
        chosen["warmup_steps"] = min(chosen["warmup_steps"], chosen["steps"] // 4)
    return Plan(**chosen, **of_preset, seed=settings.seed, device=_given(settings, "device") or "auto")


def _given(message: Message, name: str) -> Any:
    field: Any = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.is_repeated:
        return tuple(value) or None
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return field.enum_type.values_by_number[value].name.removeprefix(prefix).lower() if value else None
    return value if message.HasField(name) else None
