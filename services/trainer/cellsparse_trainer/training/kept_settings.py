"""What a run's settings were resolved to, kept with the run: an upgrade must not change a training that is under way.

A later release may have other presets. Each attempt would then train with other values than the one whose checkpoint it
resumes from. So the first attempt's configuration is kept, and later attempts take it. Settings may change between the
attempts of a run, for example to a smaller batch: what such a change makes of the configuration is applied to the kept
one, and nothing else.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from google.protobuf import json_format

from cellsparse_common.errors import Damaged, FailedPrecondition, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import C

_FILE = "settings.json"
Resolve = Callable[[trainer_pb2.TrainingSettings], C]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What an attempt was started with."""

    dataset_id: str
    """The dataset that the settings were resolved for."""
    settings: Mapping[str, Any]
    """The settings that were asked for, by their names in the proto."""
    config: Mapping[str, Any]
    """What they were resolved to, as the backend's `Config.to_json` writes it."""

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        record = {"dataset_id": self.dataset_id, "settings": self.settings, "config": self.config}
        return json.dumps(record, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        found = json.loads(data)
        if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("settings", "config")):
            raise ValueError("the objects settings and config are missing")
        return cls(dataset_id=str(found.get("dataset_id")), settings=found["settings"], config=found["config"])


def keep_settings(request: trainer_pb2.StartTrainingRequest, store: ObjectStore, resolve: Resolve[C]) -> C:
    """Return the configuration of a run's attempt: the first attempt's, but for what its settings change.

    Args:
        request: What starts the attempt.
        store: Keeps the configuration with the run.
        resolve: Resolves settings for the run's data as this release does.

    Raises:
        FailedPrecondition: This release does not know the values that the run was begun with.
        StorageError: The store failed, or what it keeps is damaged.
    """
    kept = _read(store, request.run_id)
    asked = json_format.MessageToDict(request.settings, preserving_proto_field_name=True)
    now = resolve(request.settings)
    resolved = json.loads(now.to_json())
    if kept is None or kept.dataset_id != request.dataset_id:
        _write(store, request.run_id, _Kept(dataset_id=request.dataset_id, settings=asked, config=resolved))
        return now
    before = resolved
    if asked != kept.settings:
        earlier = trainer_pb2.TrainingSettings()
        json_format.ParseDict(dict(kept.settings), earlier, ignore_unknown_fields=True)
        before = json.loads(resolve(earlier).to_json())
    config = _changed(kept.config, before, resolved)
    try:
        found: C = type(now).from_json(json.dumps(config))
    except ValueError as error:
        raise FailedPrecondition(
            f"Run {request.run_id} was begun by another release, with settings that this one does not know: {error} "
            "Start a new run."
        ) from error
    if asked != kept.settings:
        _write(store, request.run_id, _Kept(dataset_id=request.dataset_id, settings=asked, config=config))
    return found


def _changed(kept: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return kept values, with those from `now` that differ from `before`; so for each object within, too."""
    merged = dict(kept)
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict) and isinstance(kept.get(name), dict):
            merged[name] = _changed(kept[name], old, value)
        elif value != old:
            merged[name] = value
    return merged


def _read(store: ObjectStore, run_id: str) -> _Kept | None:
    try:
        return _Kept.from_json(store.get(keys.report_file(run_id, _FILE)))
    except NotFound:
        return None
    except ValueError as error:
        raise Damaged(f"The settings kept for run {run_id} are damaged: {error}.") from error


def _write(store: ObjectStore, run_id: str, kept: _Kept) -> None:
    store.put(keys.report_file(run_id, _FILE), kept.to_json())
