"""Model files for imports, made by the stock packages themselves, and the messages of an import."""

from collections.abc import Iterator

from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2


def import_messages(
    content: bytes, backend: str, *, name: str = "stock", size: int | None = None, **settings
) -> Iterator[orchestrator_pb2.ImportModelRequest]:
    """The stream of an import."""
    request = orchestrator_pb2.ImportModelRequest
    told = trainer_pb2.ImportSettings(backend=backend, **settings)
    yield request(header=orchestrator_pb2.ImportModelHeader(name=name, settings=told))
    for begin in range(0, len(content), 2**20):
        yield request(chunk=content[begin : begin + 2**20])
    yield request(end=orchestrator_pb2.ImportModelEnd(size=len(content) if size is None else size))
