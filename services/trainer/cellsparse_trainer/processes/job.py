"""What the server hands to a training process: a file whose name is the process' argument."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from cellsparse_proto.v1 import dataset_pb2, trainer_pb2

FILE = "job.json"
Plane = tuple[int, int]
"""Index of a stack, and of one of its planes."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run trains with and on. The server decides it; the worker takes it as it is."""

    config: str
    """The backend's resolved configuration, as `Config.to_json` writes it."""
    train: Sequence[dataset_pb2.DatasetItem]
    """Training items."""
    validation: Sequence[dataset_pb2.DatasetItem]
    """Validation items; may be empty."""
    train_planes: Sequence[Plane] | None = None
    """Planes of the training stacks to train on; None: the backend trains on whole items."""
    validation_planes: Sequence[Plane] = ()
    """Planes of the validation stacks to validate on, where there are `train_planes`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt of one run."""

    package: str
    """Import name of the backend's package."""
    request: trainer_pb2.StartTrainingRequest
    """The request that started the attempt."""
    inputs: Inputs
    """What to train with and on."""
    folder: Path
    """The attempt's local folder."""
    coordinator: str = ""
    """Where rank 0 listens for the others, as host:port; empty where a process trains alone."""
    rendezvous_seconds: float = 120.0
    """Seconds within which all processes must connect."""

    def write(self) -> Path:
        """Write the job into its folder and return the file."""
        path = self.folder / FILE
        record = {
            "package": self.package,
            "request": json_format.MessageToDict(without_secrets(self.request)),
            "config": self.inputs.config,
            "train": [json_format.MessageToDict(item) for item in self.inputs.train],
            "validation": [json_format.MessageToDict(item) for item in self.inputs.validation],
            "train_planes": self.inputs.train_planes,
            "validation_planes": self.inputs.validation_planes,
            "folder": str(self.folder),
            "coordinator": self.coordinator,
            "rendezvous_seconds": self.rendezvous_seconds,
        }
        path.write_text(json.dumps(record))
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read what `write` wrote."""
        found = json.loads(path.read_text())
        planes = found["train_planes"]
        inputs = Inputs(
            config=found["config"],
            train=_items(found["train"]),
            validation=_items(found["validation"]),
            train_planes=None if planes is None else _planes(planes),
            validation_planes=_planes(found["validation_planes"]),
        )
        return cls(
            package=found["package"],
            request=json_format.ParseDict(found["request"], trainer_pb2.StartTrainingRequest()),
            inputs=inputs,
            folder=Path(found["folder"]),
            coordinator=found["coordinator"],
            rendezvous_seconds=found["rendezvous_seconds"],
        )


def without_secrets(request: trainer_pb2.StartTrainingRequest) -> trainer_pb2.StartTrainingRequest:
    """Return a request as it may lie on a disk for long."""
    kept = trainer_pb2.StartTrainingRequest()
    kept.CopyFrom(request)
    kept.ClearField("credentials")
    if kept.HasField("placement"):
        kept.placement.ClearField("secret")
    return kept


def _items(records: list[dict[str, Any]]) -> list[dataset_pb2.DatasetItem]:
    return [json_format.ParseDict(record, dataset_pb2.DatasetItem()) for record in records]


def _planes(records: list[list[int]]) -> list[Plane]:
    return [(stack, plane) for stack, plane in records]
