"""What makes two attempts the same training: a checkpoint of one may go on in the other."""

from google.protobuf import json_format

from cellsparse_proto.v1 import trainer_pb2

_OWN = ("cellpose", "stardist", "unet")
_FIXED = ("preset", "seed", "lower_percentile", "upper_percentile", "channel", *_OWN)
"""Settings that decide what the weights so far mean. The others decide how the training goes on: with a lower learning
rate after a loss that was not finite, with smaller batches where memory ran out, for more steps."""


def origin(request: trainer_pb2.StartTrainingRequest) -> dict[str, str]:
    """Return what must not change between the attempts of a run, as words by name."""
    settings = json_format.MessageToDict(request.settings, preserving_proto_field_name=True)
    found = {name: _words(settings.get(name)) for name in _FIXED if name not in _OWN}
    found["backend"] = request.settings.WhichOneof("backend") or ""
    found["backend settings"] = _words(settings.get(found["backend"]))
    return {"dataset": request.dataset_id, **found}


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {value[name]}" for name in sorted(value)) or "as preset"
    return "as preset" if value is None else str(value)
