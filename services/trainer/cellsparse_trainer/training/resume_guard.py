"""Whether two attempts are the same training, so that one may resume from a checkpoint of the other."""

from google.protobuf import json_format

from cellsparse_proto.v1 import trainer_pb2

_FIXED = ("preset", "seed", "lower_percentile", "upper_percentile", "channel", "channels")
"""Common settings that decide what the weights so far mean. The others decide how the training continues: with a lower
learning rate after a loss that was not finite, with smaller batches where memory ran out, for more steps."""


def origin(request: trainer_pb2.StartTrainingRequest) -> dict[str, str]:
    """Return the settings that must not change between the attempts of a run, as texts by name."""
    settings = json_format.MessageToDict(request.settings, preserving_proto_field_name=True)
    found = {name: _text(settings.get(name)) for name in _FIXED}
    found["backend"] = request.settings.WhichOneof("backend") or ""
    found["backend settings"] = _text(settings.get(found["backend"]))
    return {"dataset": request.dataset_id, **found}


def renamed(text: str) -> str:
    """Return a text of `origin` as today's would be: release 0.1.0 had another name for a setting of StarDist."""
    if "dark_share " not in text:
        return text
    return ", ".join(sorted(text.replace("dark_share ", "likely_background ").split(", ")))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {value[name]}" for name in sorted(value)) or "as preset"
    return "as preset" if value is None else str(value)
