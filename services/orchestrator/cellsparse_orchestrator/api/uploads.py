"""UploadService: files by their hash, in parts that a cut connection does not lose."""

from collections.abc import Iterator
from datetime import timedelta

import grpc

from cellsparse_common.errors import Cancelled
from cellsparse_common.storage import ObjectStore, open_uploads
from cellsparse_orchestrator.catalogue.blob_uploads import BlobUploads, UploadRules
from cellsparse_orchestrator.catalogue.partial_files import PartialFiles
from cellsparse_orchestrator.catalogue.spooling import not_idle, time_limit
from cellsparse_orchestrator.catalogue.upload_table import UploadTable
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import incoming_folder
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import upload_pb2, upload_pb2_grpc

_KEPT = "what came of it is kept"


class UploadServicer(upload_pb2_grpc.UploadServiceServicer):
    """Serves uploads.

    Args:
        settings: Limits and times.
        uploads: Receives the files.
    """

    def __init__(self, settings: OrchestratorSettings, uploads: BlobUploads) -> None:
        self._settings = settings
        self._uploads = uploads

    def HasBlobs(
        self, request: upload_pb2.HasBlobsRequest, context: grpc.ServicerContext
    ) -> upload_pb2.HasBlobsResponse:
        """Say which files are there."""
        return upload_pb2.HasBlobsResponse(
            present=self._uploads.has(request.sha256), kept_seconds=self._uploads.table.keep.total_seconds()
        )

    def StartUploads(
        self, request: upload_pb2.StartUploadsRequest, context: grpc.ServicerContext
    ) -> upload_pb2.StartUploadsResponse:
        """Begin files, or say how far they have come."""
        return upload_pb2.StartUploadsResponse(uploads=self._uploads.start(request.files))

    def SendUploads(
        self, request_iterator: Iterator[upload_pb2.SendUploadsRequest], context: grpc.ServicerContext
    ) -> upload_pb2.SendUploadsResponse:
        """Receive files, or what is missing of them."""
        requests = not_idle(request_iterator, self._settings.upload_idle_seconds, _KEPT)
        with time_limit(context, self._settings.upload_seconds):
            try:
                return upload_pb2.SendUploadsResponse(complete=self._uploads.receive(requests))
            except grpc.RpcError as error:
                raise Cancelled(f"The upload broke off before it was complete; {_KEPT}.") from error

    def FinishUpload(
        self, request: upload_pb2.FinishUploadRequest, context: grpc.ServicerContext
    ) -> upload_pb2.FinishUploadResponse:
        """Check a file that was sent to its `url`, or in parts."""
        return upload_pb2.FinishUploadResponse(upload=self._uploads.finish(request.sha256))

    def FinishUploads(
        self, request: upload_pb2.FinishUploadsRequest, context: grpc.ServicerContext
    ) -> upload_pb2.FinishUploadsResponse:
        """Say which files have come that were sent to their checked URLs."""
        return upload_pb2.FinishUploadsResponse(uploads=self._uploads.finish_checked(request.sha256))


def make_uploads(settings: OrchestratorSettings, store: ObjectStore, database: Database) -> BlobUploads:
    """Return what receives the files of an orchestrator."""
    return BlobUploads(
        store,
        UploadTable(database, timedelta(hours=settings.upload_keep_hours)),
        PartialFiles(incoming_folder(settings.home)),
        UploadRules(
            max_bytes=max(settings.max_image_file_mib, settings.max_model_mib) * 2**20,
            url_bytes=settings.upload_url_mib * 2**20,
            part_bytes=settings.upload_part_mib * 2**20,
        ),
        open_uploads(settings, settings.upload_url_endpoint),
    )
