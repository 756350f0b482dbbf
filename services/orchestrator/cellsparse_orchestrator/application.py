"""The parts of the orchestrator, put together."""

import logging

import grpc

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import CellsparseError
from cellsparse_common.storage import open_store
from cellsparse_orchestrator.datasets import Datasets
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.events import Bell
from cellsparse_orchestrator.home import spool_folder, tell_clients
from cellsparse_orchestrator.launchers.base import Launcher
from cellsparse_orchestrator.launchers.local import LocalLauncher
from cellsparse_orchestrator.launchers.static import static_launcher
from cellsparse_orchestrator.models import Models
from cellsparse_orchestrator.progress import Attempt, Progress
from cellsparse_orchestrator.reconciler import Limits, Reconciler
from cellsparse_orchestrator.runs import Runs
from cellsparse_orchestrator.service_datasets import DatasetServicer
from cellsparse_orchestrator.service_orchestrator import OrchestratorServicer
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_orchestrator.spec import write_spec
from cellsparse_orchestrator.trainer_client import Patience
from cellsparse_proto.v1 import dataset_pb2, dataset_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc

_LOG = logging.getLogger(__name__)


class Application:
    """Builds everything from the settings; nothing runs before `start`.

    Raises:
        Unavailable: The database cannot be opened.
        InvalidArgument: The store's URL is not understood.
    """

    def __init__(self, settings: OrchestratorSettings) -> None:
        self._settings = settings
        self._store = open_store(settings)
        self._database = Database(settings.database_url)
        self._bell = Bell()
        self._launcher = _launcher(settings)
        datasets = Datasets(self._database)
        self._reconciler = Reconciler(
            Progress(self._database, self._bell),
            self._launcher,
            self._bell,
            limits=Limits(
                slots=settings.slots, first_pause=settings.retry_seconds, longest_pause=settings.retry_limit_seconds
            ),
            patience=Patience(start=settings.start_seconds, lost=settings.lost_seconds, stop=settings.stop_seconds),
            accepted=self._complete_spec,
        )
        self._orchestrator = OrchestratorServicer(
            settings,
            self._store,
            datasets=datasets,
            runs=Runs(self._database, self._bell),
            models=Models(self._database),
            launcher=self._launcher,
            bell=self._bell,
        )
        self._dataset_servicer = DatasetServicer(
            settings, self._store, datasets, self._launcher, spool_folder(settings.home)
        )

    def add(self, server: grpc.Server) -> list[str]:
        """Register the servicers; return their full names."""
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(self._dataset_servicer, server)
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(self._orchestrator, server)
        return [
            dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
            orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"].full_name,
        ]

    def start(self, address: str) -> None:
        """Begin to work, once the server answers at `address` (host:port)."""
        self._orchestrator.address = address
        self._launcher.start()
        self._reconciler.start()
        tell_clients(self._settings.home, address)

    def drain(self) -> None:
        """Let go of runs and watchers; other calls may still finish."""
        self._bell.close()
        try:
            self._reconciler.stop()
        except CellsparseError as error:
            _LOG.warning("the runs could not be told of the end: %s", error.message)

    def stop(self) -> None:
        """End what was started here."""
        self._launcher.stop()
        self._database.close()

    def _complete_spec(self, attempt: Attempt, versions: dict[str, str]) -> None:
        try:
            manifest = read_manifest(self._store, attempt.dataset_id)
            write_spec(self._store, attempt.run_id, attempt.settings, manifest, versions)
        except CellsparseError as error:
            # The attempt is worth more than the list of versions; the trainer writes them into the model, too.
            _LOG.warning("the specification of run %s could not be completed: %s", attempt.run_id, error.message)


def _launcher(settings: OrchestratorSettings) -> Launcher:
    if settings.launcher == "local":
        return LocalLauncher(settings)
    return static_launcher(settings.trainers, settings.sparsifier)
