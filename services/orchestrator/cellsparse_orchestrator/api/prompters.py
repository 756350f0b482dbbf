"""PrompterService: weights of prompters that users bring."""

from collections.abc import Iterator

import grpc

from cellsparse_common.errors import Cancelled
from cellsparse_common.files import disk_errors
from cellsparse_common.storage import ObjectStore
from cellsparse_common.storage.keys import PrompterPart
from cellsparse_orchestrator.catalogue.prompter_uploads import receive_prompter
from cellsparse_orchestrator.catalogue.prompters import Prompters
from cellsparse_orchestrator.catalogue.spooling import not_idle, time_limit, upload_folder
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import spool_folder
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import prompter_pb2, prompter_pb2_grpc

CHUNK_BYTES = 2**20
_PARTS: dict[int, PrompterPart] = {
    prompter_pb2.PROMPTER_PART_ENCODER: "encoder",
    prompter_pb2.PROMPTER_PART_DECODER: "decoder",
}


class PrompterServicer(prompter_pb2_grpc.PrompterServiceServicer):
    """Serves prompters: rows in the database, files in the store.

    Args:
        settings: Limits and times.
        store: The object store.
        database: The database.
    """

    def __init__(self, settings: OrchestratorSettings, store: ObjectStore, database: Database) -> None:
        self._settings = settings
        self._store = store
        self._prompters = Prompters(database, store)
        self._spool = spool_folder(settings.home)

    def AddPrompter(
        self, request_iterator: Iterator[prompter_pb2.AddPrompterRequest], context: grpc.ServicerContext
    ) -> prompter_pb2.AddPrompterResponse:
        """Add a prompter from an upload; store and database change only if the whole upload is valid."""
        with upload_folder(self._spool) as folder, time_limit(context, self._settings.upload_seconds):
            try:
                upload = receive_prompter(
                    not_idle(request_iterator, self._settings.upload_idle_seconds),
                    folder,
                    self._settings.max_prompter_mib * 2**20,
                )
            except grpc.RpcError as error:
                raise Cancelled("The upload broke off before it was complete; nothing of it is kept.") from error
            return prompter_pb2.AddPrompterResponse(prompter=self._prompters.add(upload))

    def ListPrompters(
        self, request: prompter_pb2.ListPromptersRequest, context: grpc.ServicerContext
    ) -> prompter_pb2.ListPromptersResponse:
        """List prompters, newest first."""
        found, token = self._prompters.page(request.page)
        return prompter_pb2.ListPromptersResponse(prompters=found, next_page_token=token)

    def DeletePrompter(
        self, request: prompter_pb2.DeletePrompterRequest, context: grpc.ServicerContext
    ) -> prompter_pb2.DeletePrompterResponse:
        """Delete a prompter with its files."""
        self._prompters.remove(request.name)
        return prompter_pb2.DeletePrompterResponse()

    def GetPrompterFile(
        self, request: prompter_pb2.GetPrompterFileRequest, context: grpc.ServicerContext
    ) -> Iterator[prompter_pb2.GetPrompterFileResponse]:
        """Send one file of a prompter, through the spool so that it is never whole in memory."""
        key, header = self._prompters.file(request.name, _PARTS[request.part])
        with upload_folder(self._spool) as folder, time_limit(context, self._settings.export_seconds):
            path = folder / "file"
            self._store.fetch(key, path)
            yield prompter_pb2.GetPrompterFileResponse(header=header)
            with disk_errors(f"read {path}"), path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield prompter_pb2.GetPrompterFileResponse(chunk=chunk)
