"""Starts a trainer: what the three backends' `__main__` call."""

import sys

from cellsparse_common.errors import CellsparseError
from cellsparse_common.logs import configure_logging
from cellsparse_common.server import serve
from cellsparse_common.settings import load
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc
from cellsparse_trainer.service import TrainerServicer
from cellsparse_trainer.settings import TrainerSettings


def run_trainer(*, backend: str, module: str, default_port: int) -> None:
    """Serve one backend until SIGTERM, then exit.

    Args:
        backend: The name of the backend's field in `TrainingSettings`.
        module: Import name of the backend module; loaded in child processes only.
        default_port: Port to listen on unless CELLSPARSE_PORT says otherwise.
    """
    try:
        settings = load(TrainerSettings)
        if "port" not in settings.model_fields_set:
            settings = settings.model_copy(update={"port": default_port})
        configure_logging(f"trainer-{backend}", settings.log_level)
        servicer = TrainerServicer(backend, module, settings, open_store(settings))

        def add(server: object) -> list[str]:
            trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server)
            return [trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name]

        code = serve(
            name=f"trainer-{backend}",
            settings=settings,
            add=add,
            drain=servicer.drain,
            stop=servicer.close,
            busy=servicer.busy,
        )
    except CellsparseError as error:
        sys.exit(error.message)
    sys.exit(code)
