"""Starts a trainer service: the `__main__` of every backend calls `run_trainer`."""

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

from cellsparse_common import tracing
from cellsparse_common.config.settings import load
from cellsparse_common.errors import CellsparseError, FailedPrecondition
from cellsparse_common.logs import configure_logging
from cellsparse_common.rpc.metrics import new_registry
from cellsparse_common.rpc.server import serve
from cellsparse_common.storage import open_checked_store
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc
from cellsparse_trainer.config.settings import TrainerSettings
from cellsparse_trainer.contract import BackendSpec, C
from cellsparse_trainer.processes import environment
from cellsparse_trainer.processes.metrics import TrainingMetrics, add_inference_gauges
from cellsparse_trainer.service import TrainerServicer


def run_trainer(spec: BackendSpec[C]) -> None:
    """Serve one backend until SIGTERM, then exit."""
    try:
        settings = load(TrainerSettings)
        if "port" not in settings.model_fields_set:
            settings = settings.model_copy(update={"port": spec.default_port})
        configure_logging(f"trainer-{spec.name}", settings.log_level)
        tracing.start(f"trainer-{spec.name}")
        environment.prepare(os.environ, spec.environment)
        work_dir = settings.work_dir or Path(tempfile.mkdtemp(prefix=f"cellsparse-{spec.name}-"))
        lock = _lock(work_dir)
        registry = new_registry()
        metrics = TrainingMetrics(registry)
        servicer = TrainerServicer(spec, settings, open_checked_store(settings), work_dir, metrics)
        add_inference_gauges(
            registry, waiting=servicer.waiting, models=servicer.cached_models, model_bytes=servicer.cached_bytes
        )

        def add(server: object) -> list[str]:
            trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server)
            return [trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name]

        code = serve(
            name=f"trainer-{spec.name}",
            settings=settings,
            add=add,
            drain=servicer.drain,
            stop=servicer.close,
            busy=servicer.busy,
            registry=registry,
        )
        lock.close()
        if settings.work_dir is None:
            shutil.rmtree(work_dir, ignore_errors=True)
    except CellsparseError as error:
        sys.exit(error.message)
    sys.exit(code)


def _lock(folder: Path) -> IO[str]:
    """Lock a work folder: two trainers in one would end each other's attempts.

    Raises:
        FailedPrecondition: Another trainer has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise FailedPrecondition(f"Another trainer works in {folder}; set CELLSPARSE_WORK_DIR.") from error
    return lock
