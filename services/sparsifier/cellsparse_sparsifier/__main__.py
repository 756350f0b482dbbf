"""Serves the sparsifier."""

import sys

import grpc

from cellsparse_common import tracing
from cellsparse_common.config.settings import InnerServerSettings, load
from cellsparse_common.errors import CellsparseError
from cellsparse_common.logs import configure_logging
from cellsparse_common.rpc.metrics import new_registry
from cellsparse_common.rpc.server import serve
from cellsparse_common.storage import open_checked_store
from cellsparse_proto.v1 import sparsifier_pb2, sparsifier_pb2_grpc
from cellsparse_sparsifier.metrics import SparsifyMetrics
from cellsparse_sparsifier.service import SparsifierServicer

NAME = "sparsifier"
DEFAULT_PORT = 50051


def main() -> None:
    """Serve until SIGTERM, then exit."""
    try:
        settings = load(InnerServerSettings)
        if "port" not in settings.model_fields_set:
            settings = settings.model_copy(update={"port": DEFAULT_PORT})
        configure_logging(NAME, settings.log_level)
        tracing.start(NAME)
        registry = new_registry()
        servicer = SparsifierServicer(settings, open_checked_store(settings), SparsifyMetrics(registry))

        def add(server: grpc.Server) -> list[str]:
            sparsifier_pb2_grpc.add_SparsifierServiceServicer_to_server(servicer, server)
            return [sparsifier_pb2.DESCRIPTOR.services_by_name["SparsifierService"].full_name]

        code = serve(name=NAME, settings=settings, add=add, drain=servicer.drain, registry=registry)
    except CellsparseError as error:
        sys.exit(error.message)
    sys.exit(code)


if __name__ == "__main__":
    main()
