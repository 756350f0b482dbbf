"""A sparsifier as a process of its own, over a folder store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.server_process import ServerProcess

from cellsparse_common.rpc.channel import open_channel
from cellsparse_proto.v1 import sparsifier_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class Sparsifier:
    """A running server."""

    process: ServerProcess
    stub: sparsifier_pb2_grpc.SparsifierServiceStub

    def peak_memory_mib(self) -> float:
        """Most resident memory so far (VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


@contextmanager
def running_sparsifier(store: Path, work: Path, **settings: str) -> Iterator[Sparsifier]:
    """Start a server with CELLSPARSE_<SETTING> variables, wait until it answers, and stop it in the end."""
    variables = {f"CELLSPARSE_{name.upper()}": value for name, value in settings.items()}
    with (
        ServerProcess(["-m", "cellsparse_sparsifier"], store, work, **variables) as process,
        open_channel(process.address) as channel,
    ):
        yield Sparsifier(process=process, stub=sparsifier_pb2_grpc.SparsifierServiceStub(channel))
