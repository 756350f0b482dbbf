"""What the server tells a training process: a file whose name is the process' argument."""

import json
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from cellsparse_proto.v1 import trainer_pb2

FILE = "job.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt of one run."""

    module: str
    """Import name of the backend module."""
    request: trainer_pb2.StartTrainingRequest
    """What was asked for."""
    folder: Path
    """The attempt's local folder."""
    crew: str = ""
    """Where rank 0 listens for the others, as host:port; empty where a process trains alone."""
    start_seconds: float = 120.0
    """Seconds that all processes have to be there."""

    def write(self) -> Path:
        """Write the job into its folder and return the file."""
        path = self.folder / FILE
        request = json_format.MessageToDict(self.request)
        record = {
            "module": self.module,
            "request": request,
            "folder": str(self.folder),
            "crew": self.crew,
            "start_seconds": self.start_seconds,
        }
        path.write_text(json.dumps(record))
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read what `write` wrote."""
        found = json.loads(path.read_text())
        found["request"] = json_format.ParseDict(found["request"], trainer_pb2.StartTrainingRequest())
        return cls(**{**found, "folder": Path(found["folder"])})
