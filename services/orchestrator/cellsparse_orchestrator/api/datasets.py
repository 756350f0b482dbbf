"""DatasetService: uploads, lists, deletion and sparse copies."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from sqlalchemy.exc import IntegrityError

from cellsparse_common.datasets import read_known_manifest, read_manifest, summarize, write_manifest
from cellsparse_common.errors import AlreadyExists, Cancelled, NotFound, ResourceExhausted
from cellsparse_common.storage import FolderStore, ObjectStore, keys
from cellsparse_common.storage.blobs import blob_size, keep_blob, read_blob
from cellsparse_orchestrator.api.runs import Tables
from cellsparse_orchestrator.calls import known_dataset, stream_service
from cellsparse_orchestrator.catalogue.blob_datasets import check_files, dataset_id_of, upload_of
from cellsparse_orchestrator.catalogue.deletion import DATASET
from cellsparse_orchestrator.catalogue.references import own_bytes
from cellsparse_orchestrator.catalogue.sparse_names import sparse_name
from cellsparse_orchestrator.catalogue.spooling import alive, not_idle, time_limit, upload_folder
from cellsparse_orchestrator.catalogue.uploads import DatasetUpload, UploadLimits
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.home import spool_folder
from cellsparse_orchestrator.launchers.base import SPARSIFIER, Launcher
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import dataset_pb2, dataset_pb2_grpc, sparsifier_pb2, sparsifier_pb2_grpc

_MESSAGE_MARGIN = 2**20


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Serves datasets: rows in the database, manifests and blobs in the store.

    Args:
        settings: Limits and times.
        store: The object store.
        tables: The tables.
        launcher: Knows the sparsifier.
    """

    def __init__(self, settings: OrchestratorSettings, store: ObjectStore, tables: Tables, launcher: Launcher) -> None:
        self._settings = settings
        self._store = store
        self._datasets = tables.datasets
        self._deletions = tables.deletions
        self._uploads = tables.uploads
        self._launcher = launcher
        self._spool = spool_folder(settings.home)

    def CreateDataset(
        self, request_iterator: Iterator[dataset_pb2.CreateDatasetRequest], context: grpc.ServicerContext
    ) -> dataset_pb2.CreateDatasetResponse:
        """Make a dataset from an upload; store and database change only if the whole stream is valid."""
        with upload_folder(self._spool) as folder:
            upload = self._new_upload(folder)
            with time_limit(context, self._settings.upload_seconds):
                try:
                    upload.read(not_idle(request_iterator, self._settings.upload_idle_seconds))
                except grpc.RpcError as error:
                    raise Cancelled("The upload broke off before it was complete; nothing of it is kept.") from error
            summary = self._add(upload, folder, new_id("ds"))
        return dataset_pb2.CreateDatasetResponse(dataset=summary, report=upload.report)

    def CreateDatasetFromBlobs(
        self, request: dataset_pb2.CreateDatasetFromBlobsRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.CreateDatasetFromBlobsResponse:
        """Make a dataset of files that are there already, once for each request id."""
        check_files(self._uploads, request.files)
        answer = dataset_pb2.CreateDatasetFromBlobsResponse
        dataset_id = dataset_id_of(request.request_id) if request.request_id else new_id("ds")
        with upload_folder(self._spool) as folder:
            hashes = sorted({entry.sha256 for entry in request.files if entry.sha256})
            upload = self._new_upload(folder, hashes)
            upload.read(alive(upload_of(request, self._store, self._uploads), context))
            if request.check_only:
                return answer(report=upload.report)
            made = self._datasets.find(dataset_id) if request.request_id else None
            if made is None:
                try:
                    made = self._add(upload, folder, dataset_id, hashes)
                except IntegrityError:  # the same request has made it meanwhile
                    made = self._datasets.get(dataset_id)
            elif list(read_known_manifest(self._store, dataset_id).items) != upload.items:
                raise AlreadyExists(f"request_id {request.request_id} has made another dataset.", "request_id")
        return answer(dataset=made, report=upload.report)

    def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.ListDatasetsResponse:
        """List datasets, newest first."""
        found, token = self._datasets.page(request.page)
        return dataset_pb2.ListDatasetsResponse(datasets=found, next_page_token=token)

    def GetDataset(
        self, request: dataset_pb2.GetDatasetRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.GetDatasetResponse:
        """Return one dataset."""
        return dataset_pb2.GetDatasetResponse(dataset=self._datasets.get(request.dataset_id))

    def ListDatasetItems(
        self, request: dataset_pb2.ListDatasetItemsRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.ListDatasetItemsResponse:
        """List a dataset's items in sparsify_request."""
        begin = decode_token("items", request.page.page_token) or 0
        end = begin + page_size(request.page)
        items = self._manifest(request.dataset_id).items
        token = encode_token("items", end) if end < len(items) else ""
        return dataset_pb2.ListDatasetItemsResponse(items=items[begin:end], next_page_token=token)

    def GetDatasetItem(
        self, request: dataset_pb2.GetDatasetItemRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.GetDatasetItemResponse:
        """Return one item's files."""
        items = self._manifest(request.dataset_id).items
        item = next((item for item in items if item.name == request.item), None)
        if item is None:
            raise NotFound(f"Dataset {request.dataset_id} has no item {request.item!r}.", "item")
        blobs = (item.image_sha256, item.label_sha256)
        size = sum(blob_size(self._store, sha256) for sha256 in blobs)
        limit = self._settings.max_message_mib * 2**20 - _MESSAGE_MARGIN
        if size > limit:
            raise ResourceExhausted(
                f"Item {request.item!r} takes {size / 2**20:.0f} MiB; one answer holds at most {limit / 2**20:.0f} MiB."
            )
        image, label = (read_blob(self._store, sha256) for sha256 in blobs)
        return dataset_pb2.GetDatasetItemResponse(item=item, image=image, label=label)

    def DeleteDataset(
        self, request: dataset_pb2.DeleteDatasetRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.DeleteDatasetResponse:
        """Delete a dataset that no unfinished run needs; a collection removes its manifest and blobs."""
        self._datasets.remove(request.dataset_id)
        return dataset_pb2.DeleteDatasetResponse()

    def UndeleteDataset(
        self, request: dataset_pb2.UndeleteDatasetRequest, context: grpc.ServicerContext
    ) -> dataset_pb2.UndeleteDatasetResponse:
        """Undelete a dataset."""
        self._deletions.restore(DATASET, request.dataset_id)
        return dataset_pb2.UndeleteDatasetResponse(dataset=self._datasets.get(request.dataset_id))

    def CreateSparseDataset(
        self, request: dataset_pb2.CreateSparseDatasetRequest, context: grpc.ServicerContext
    ) -> Iterator[dataset_pb2.CreateSparseDatasetResponse]:
        """Let the sparsifier write a sparse copy, and make it visible when it is complete."""
        with self._datasets.publishing.hold():
            yield from self._make_sparse(request, context)

    def _make_sparse(
        self, request: dataset_pb2.CreateSparseDatasetRequest, context: grpc.ServicerContext
    ) -> Iterator[dataset_pb2.CreateSparseDatasetResponse]:
        source = self._datasets.get(request.dataset_id)
        sparsify_request = sparsifier_pb2.SparsifyDatasetRequest(
            dataset_id=request.dataset_id,
            target_dataset_id=new_id("ds"),
            target_name=request.name or sparse_name(source.name, request.settings),
            settings=request.settings,
            splits=request.splits,
        )
        answers = stream_service(
            self._launcher,
            SPARSIFIER,
            context,
            self._settings.evaluate_seconds,
            lambda channel, seconds: sparsifier_pb2_grpc.SparsifierServiceStub(channel).SparsifyDataset(
                sparsify_request, timeout=seconds
            ),
        )
        for answer in self._known(request.dataset_id, answers):
            progress = dataset_pb2.CreateSparseDatasetResponse(
                items_done=answer.items_done, items_total=answer.items_total, warnings=answer.warnings
            )
            if answer.done:
                manifest = read_manifest(self._store, sparsify_request.target_dataset_id)
                made = manifest.dataset
                self._datasets.add(made, size=own_bytes(self._store, manifest))
                progress.dataset.CopyFrom(made)
            yield progress

    @staticmethod
    def _known(
        dataset_id: str, answers: Iterator[sparsifier_pb2.SparsifyDatasetResponse]
    ) -> Iterator[sparsifier_pb2.SparsifyDatasetResponse]:
        with known_dataset(dataset_id):
            yield from answers

    def _manifest(self, dataset_id: str) -> dataset_pb2.DatasetManifest:
        self._datasets.get(dataset_id)
        return read_known_manifest(self._store, dataset_id)

    def _new_upload(self, folder: Path, sent: Sequence[str] = ()) -> DatasetUpload:
        limits = UploadLimits(
            max_pixels=self._settings.max_pixels, max_file_bytes=self._settings.max_image_file_mib * 2**20
        )
        return DatasetUpload(FolderStore(folder / "store"), folder, limits, self._store, frozenset(sent))

    def _add(
        self, upload: DatasetUpload, folder: Path, dataset_id: str, hashes: Sequence[str] = ()
    ) -> dataset_pb2.Dataset:
        """Publish what was uploaded into a folder, and return the dataset.

        Args:
            upload: The upload, read.
            folder: Its folder.
            dataset_id: Id of the dataset.
            hashes: Files that were sent before, of which it was made.
        """
        summary = summarize(upload.items, dataset_id=dataset_id, name=upload.name, created_at=timestamp(now()))
        with self._datasets.publishing.hold():
            size = self._publish(FolderStore(folder / "store"), folder / "store") + sum(upload.reused.values())
            write_manifest(self._store, dataset_pb2.DatasetManifest(dataset=summary, items=upload.items))
            self._datasets.add(summary, size=size, uploads=hashes)
        return summary

    def _publish(self, spool: ObjectStore, folder: Path) -> int:
        """Copy spooled blobs, unless the store has them whole, and return their bytes.

        The manifest, written later, makes them a dataset.
        """
        size = 0
        for key in spool.list(keys.BLOBS):
            keep_blob(self._store, keys.blob_sha256(key), folder / key)
            size += spool.size(key)
        return size
