"""AdminService: what whoever runs an installation asks of it."""

import threading
from collections.abc import Iterator

import grpc

from cellsparse_common.errors import Cancelled, FailedPrecondition
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.catalogue.scrub import Scrub
from cellsparse_orchestrator.catalogue.scrub_ledger import open_ledger
from cellsparse_orchestrator.catalogue.spooling import upload_folder
from cellsparse_orchestrator.collection.collections import Collections
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import spool_folder
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import admin_pb2, admin_pb2_grpc

DEFAULT_MIB_PER_SECOND = 50


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Looks after what is kept.

    Args:
        settings: The home folder.
        store: The object store.
        database: The database.
        collections: Begins collections.
    """

    def __init__(
        self, settings: OrchestratorSettings, store: ObjectStore, database: Database, collections: Collections
    ) -> None:
        self._spool = spool_folder(settings.home)
        self._store = store
        self._database = database
        self._collections = collections
        self._projects = Projects(database, store)
        self._scrubbing = threading.Lock()

    def Scrub(
        self, request: admin_pb2.ScrubRequest, context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.ScrubResponse]:
        """Read all blobs and say which are missing, rotten or unreferenced."""

        def alive() -> None:
            if not context.is_active():
                raise Cancelled("The scrub was cancelled.")

        rate = request.max_mib_per_second if request.HasField("max_mib_per_second") else DEFAULT_MIB_PER_SECOND
        if not self._scrubbing.acquire(blocking=False):
            raise FailedPrecondition("A scrub is under way already; wait for its end.")
        try:
            with upload_folder(self._spool) as folder, open_ledger(folder) as ledger:
                scrub = Scrub(self._store, self._database, ledger, mib_per_second=rate, alive=alive)
                yield from scrub.run()
        finally:
            self._scrubbing.release()

    def SetProjectLimits(
        self, request: admin_pb2.SetProjectLimitsRequest, context: grpc.ServicerContext
    ) -> admin_pb2.SetProjectLimitsResponse:
        """Set the limits of a project."""
        project = self._projects.set_limits(request.project_id, request.limits)
        return admin_pb2.SetProjectLimitsResponse(project=project)

    def Collect(
        self, request: admin_pb2.CollectRequest, context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.CollectResponse]:
        """Remove what was deleted long ago, and what nothing refers to."""

        def alive() -> None:
            if not context.is_active():
                raise Cancelled("The collection was cancelled.")

        yield from self._collections.run(dry_run=request.dry_run, alive=alive)
