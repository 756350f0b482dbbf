"""What the server tells a training process: one JSON line on its standard input."""

import json
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from cellsparse_proto.v1 import trainer_pb2


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt of one run."""

    module: str
    """Import name of the backend module."""
    request: trainer_pb2.StartTrainingRequest
    """What was asked for."""
    folder: Path
    """The attempt's local folder."""

    def to_line(self) -> str:
        """Return the job as one line of JSON."""
        request = json_format.MessageToDict(self.request)
        return json.dumps({"module": self.module, "request": request, "folder": str(self.folder)}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Job":
        """Read what `to_line` wrote."""
        found = json.loads(line)
        request = json_format.ParseDict(found["request"], trainer_pb2.StartTrainingRequest())
        return cls(module=found["module"], request=request, folder=Path(found["folder"]))
