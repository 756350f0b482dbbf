"""OrchestratorService: runs, models, and calls passed on to trainers."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from cellsparse_common import tracing
from cellsparse_common.datasets import read_known_manifest
from cellsparse_common.errors import (
    Cancelled,
    CellsparseError,
    Damaged,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from cellsparse_common.logs import traceparent
from cellsparse_common.rpc.waiting_streams import Pause
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.api.status import read_status
from cellsparse_orchestrator.caller import caller_metadata
from cellsparse_orchestrator.calls import call_service, known_dataset, stream_service
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.deletion import MODEL, RUN, Deletions
from cellsparse_orchestrator.catalogue.model_import import ModelImports
from cellsparse_orchestrator.catalogue.model_uploads import ModelUpload, receive_model
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.catalogue.spooling import not_idle, time_limit, upload_folder
from cellsparse_orchestrator.catalogue.transfers import Transfers, receive_image, send_result
from cellsparse_orchestrator.catalogue.upload_table import UploadTable, missing_files
from cellsparse_orchestrator.clock import new_id
from cellsparse_orchestrator.home import spool_folder
from cellsparse_orchestrator.launchers.base import Launcher
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.paging import LARGEST
from cellsparse_orchestrator.runs.queries import RunFilter, Runs
from cellsparse_orchestrator.runs.shared_events import SharedEvents
from cellsparse_orchestrator.runs.sizes import check_size
from cellsparse_orchestrator.runs.spec import write_spec
from cellsparse_orchestrator.runs.trainable import TrainableDatasets, check_backend
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import (
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

_WATCH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables that the service reads and writes."""

    datasets: Datasets
    runs: Runs
    models: Models
    deletions: Deletions
    uploads: UploadTable


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Serves runs and models, and passes calls on to trainers.

    Args:
        settings: Limits and times.
        store: The object store.
        tables: The tables.
        launcher: Knows the trainers.
        notifier: Is notified of every event of a run.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        store: ObjectStore,
        tables: Tables,
        launcher: Launcher,
        notifier: Notifier,
    ) -> None:
        self.address = ""
        """The orchestrator's own host:port; set once it is known."""
        self._settings = settings
        self._store = store
        self._datasets = tables.datasets
        self._runs = tables.runs
        self._models = tables.models
        self._deletions = tables.deletions
        self._uploads = tables.uploads
        self._events = SharedEvents(self._runs.events)
        self._launcher = launcher
        self._notifier = notifier
        self._spool = spool_folder(settings.home)
        self.transfers = Transfers(store)
        self._imports = ModelImports(store, tables.models)
        self._trainable = TrainableDatasets(store)

    def CreateRun(
        self, request: orchestrator_pb2.CreateRunRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.CreateRunResponse:
        """Queue a run, or return the run that the same request made before."""
        known = self._runs.find_request(request)
        if known is not None:
            return orchestrator_pb2.CreateRunResponse(run=known)
        check_size(request.settings)
        self._check(request)
        run_id = new_id("run")
        with self._traced([(run_id, request)]) as used:
            run = self._runs.add(run_id, request.name, request)
            used.add(run.id)
        return orchestrator_pb2.CreateRunResponse(run=run)

    def CreateRuns(
        self, request: orchestrator_pb2.CreateRunsRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.CreateRunsResponse:
        """Queue many runs, all or none, or return those that the same request made before."""
        known = self._runs.find_requests(request)
        if known:
            return orchestrator_pb2.CreateRunsResponse(runs=known)
        checked: set[tuple[str | None, str, str]] = set()
        for number, asked in enumerate(request.runs):
            if asked.request_id:
                field = f"runs[{number}].request_id"
                raise InvalidArgument(f"{field} is {asked.request_id!r}; allowed: none, as the call has one.", field)
            check_size(asked.settings)
            kind = (asked.settings.WhichOneof("backend"), asked.settings.initial_model, asked.dataset_id)
            if kind not in checked:
                self._check(asked)
                checked.add(kind)
        run_ids = [new_id("run") for _ in request.runs]
        with self._traced(list(zip(run_ids, request.runs, strict=True))) as used:
            made = self._runs.add_together(run_ids, request)
            used.update(run.id for run in made)
        return orchestrator_pb2.CreateRunsResponse(runs=made)

    @contextmanager
    def _traced(self, runs: Sequence[tuple[str, orchestrator_pb2.CreateRunRequest]]) -> Iterator[set[str]]:
        """Write the specifications of runs that are about to be queued, if they are to keep the trace of this call.

        Else a run's specification is written when it begins.

        Args:
            runs: Their ids and requests.

        Yields:
            Where to add the ids of those that were queued; the specifications of others are deleted.
        """
        used: set[str] = set()
        trace = traceparent() if tracing.service() else ""
        if not trace:
            yield used
            return
        with self._datasets.publishing.hold():
            try:
                for run_id, request in runs:
                    manifest = read_known_manifest(self._store, request.dataset_id)
                    write_spec(self._store, run_id, request.settings, manifest, {}, trace)
                yield used
            finally:
                for run_id, _ in runs:
                    if run_id not in used:
                        self._forget_spec(run_id)

    def GetRun(
        self, request: orchestrator_pb2.GetRunRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetRunResponse:
        """Return one run."""
        return orchestrator_pb2.GetRunResponse(run=self._runs.get(request.run_id))

    def ListRuns(
        self, request: orchestrator_pb2.ListRunsRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ListRunsResponse:
        """List runs, newest first."""
        chosen = RunFilter(states=request.states, backend=request.backend, dataset_id=request.dataset_id)
        found, token = self._runs.page(request.page, chosen)
        return orchestrator_pb2.ListRunsResponse(runs=found, next_page_token=token)

    def WatchRun(
        self, request: orchestrator_pb2.WatchRunRequest, context: grpc.ServicerContext
    ) -> Iterator[orchestrator_pb2.WatchRunResponse | Pause]:
        """Stream a run's events until it has ended."""
        after = min(request.after_sequence, LARGEST)
        while context.is_active():
            seen = self._notifier.version(request.run_id)
            found, ended = self._events(request.run_id, after, seen)
            for event in found:
                after = event.sequence
                yield orchestrator_pb2.WatchRunResponse(event=event)
            if ended:
                return
            if self._notifier.closed:
                raise Unavailable("The orchestrator is stopping; watch again from the last sequence number seen.")
            if not found:
                yield self._notifier.news(request.run_id, seen, _WATCH_SECONDS)

    def CancelRun(
        self, request: orchestrator_pb2.CancelRunRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.CancelRunResponse:
        """Cancel a run."""
        return orchestrator_pb2.CancelRunResponse(run=self._runs.cancel(request.run_id))

    def ListModels(
        self, request: orchestrator_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ListModelsResponse:
        """List models, newest first."""
        found, token = self._models.page(request.page, request.backend)
        return orchestrator_pb2.ListModelsResponse(models=found, next_page_token=token)

    def GetModel(
        self, request: orchestrator_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetModelResponse:
        """Return one model."""
        return orchestrator_pb2.GetModelResponse(model=self._models.get(request.model_id))

    def Predict(
        self, request: trainer_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.PredictResponse:
        """Segment one image on a trainer of the model's backend."""
        if request.transfer_id:
            raise InvalidArgument("transfer_id is for calls between services; give the image.", "transfer_id")
        if not request.image:
            raise InvalidArgument("image is missing.", "image")
        return self._predict(request, context, self._settings.predict_seconds)

    def PredictFile(
        self, request_iterator: Iterator[orchestrator_pb2.PredictFileRequest], context: grpc.ServicerContext
    ) -> Iterator[orchestrator_pb2.PredictFileResponse]:
        """Segment one image of any size; it and the result are on disk and in the store, never whole in memory."""
        with upload_folder(self._spool) as folder:
            image, result = folder / "image", folder / "result"
            with time_limit(context, self._settings.upload_seconds):
                try:
                    header = receive_image(
                        not_idle(request_iterator, self._settings.upload_idle_seconds),
                        image,
                        self._settings.max_image_file_mib * 2**20,
                    )
                except grpc.RpcError as error:
                    raise Cancelled("The image broke off before it was complete; nothing of it is kept.") from error
            answer = self.transfers.predict(
                header,
                image,
                result,
                lambda asked: self._predict(asked, context, self._settings.evaluate_seconds),
            )
            yield from send_result(answer, result)

    def _predict(
        self, request: trainer_pb2.PredictRequest, context: grpc.ServicerContext, most_seconds: float
    ) -> trainer_pb2.PredictResponse:
        backend = self._models.get(request.model_id).backend
        answer: trainer_pb2.PredictResponse = call_service(
            self._launcher,
            backend,
            context,
            most_seconds,
            lambda channel, seconds: trainer_pb2_grpc.TrainerServiceStub(channel).Predict.future(
                request, timeout=seconds, metadata=caller_metadata(context)
            ),
        )
        return answer

    def Evaluate(
        self, request: trainer_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> Iterator[trainer_pb2.EvaluateResponse]:
        """Score a model on a trainer of its backend."""
        backend = self._models.get(request.model_id).backend
        self._datasets.get(request.dataset_id)
        with known_dataset(request.dataset_id):
            yield from stream_service(
                self._launcher,
                backend,
                context,
                self._settings.evaluate_seconds,
                lambda channel, seconds: trainer_pb2_grpc.TrainerServiceStub(channel).Evaluate(
                    request, timeout=seconds, metadata=caller_metadata(context)
                ),
            )

    def Export(
        self, request: trainer_pb2.ExportRequest, context: grpc.ServicerContext
    ) -> Iterator[trainer_pb2.ExportResponse]:
        """Write a model as a file for other tools on a trainer of its backend."""
        backend = self._models.get(request.model_id).backend
        yield from stream_service(
            self._launcher,
            backend,
            context,
            self._settings.export_seconds,
            lambda channel, seconds: trainer_pb2_grpc.TrainerServiceStub(channel).Export(
                request, timeout=seconds, metadata=caller_metadata(context)
            ),
        )

    def ImportModel(
        self, request_iterator: Iterator[orchestrator_pb2.ImportModelRequest], context: grpc.ServicerContext
    ) -> orchestrator_pb2.ImportModelResponse:
        """Make a model from an uploaded file; store and database change only if the whole upload is valid."""
        with upload_folder(self._spool) as folder, time_limit(context, self._settings.upload_seconds):
            try:
                upload = receive_model(
                    not_idle(request_iterator, self._settings.upload_idle_seconds),
                    folder / "model",
                    self._settings.max_model_mib * 2**20,
                )
            except grpc.RpcError as error:
                raise Cancelled("The import broke off before it was complete; nothing of it is kept.") from error
            return orchestrator_pb2.ImportModelResponse(model=self._import(upload, context))

    def ImportModelFromBlob(
        self, request: orchestrator_pb2.ImportModelFromBlobRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ImportModelFromBlobResponse:
        """Make a model from a file that is there already."""
        what, most = "model file", self._settings.max_model_mib
        self._uploads.require([(request.sha256, what)])
        if self._uploads.get(request.sha256).size > most * 2**20:
            raise ResourceExhausted(f"The model file is larger than {most} MiB, the most allowed.", "sha256")
        with upload_folder(self._spool) as folder:
            file = folder / "model"
            try:
                self._store.fetch(keys.blob(request.sha256), file)
            except (NotFound, Damaged) as error:
                self._uploads.forget(request.sha256)
                raise missing_files([(request.sha256, what)]) from error
            upload = ModelUpload(header=request.header, file=file, sha256=request.sha256)
            model = self._import(upload, context)
        self._uploads.use([request.sha256])
        return orchestrator_pb2.ImportModelFromBlobResponse(model=model)

    def _import(self, upload: ModelUpload, context: grpc.ServicerContext) -> orchestrator_pb2.Model:
        backend = upload.header.settings.backend
        check_backend(self._launcher, backend)

        def publish(publish_request: trainer_pb2.PublishModelRequest) -> None:
            call_service(
                self._launcher,
                backend,
                context,
                self._settings.import_seconds,
                lambda channel, seconds: trainer_pb2_grpc.TrainerServiceStub(channel).PublishModel.future(
                    publish_request, timeout=seconds, metadata=caller_metadata(context)
                ),
            )

        with self._datasets.publishing.hold():
            return self._imports.add(upload, publish)

    def DeleteRun(
        self, request: orchestrator_pb2.DeleteRunRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.DeleteRunResponse:
        """Delete a run that has ended; its model stays."""
        self._runs.remove(request.run_id)
        return orchestrator_pb2.DeleteRunResponse()

    def UndeleteRun(
        self, request: orchestrator_pb2.UndeleteRunRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.UndeleteRunResponse:
        """Undelete a run."""
        self._deletions.restore(RUN, request.run_id)
        return orchestrator_pb2.UndeleteRunResponse(run=self._runs.get(request.run_id))

    def DeleteModel(
        self, request: orchestrator_pb2.DeleteModelRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.DeleteModelResponse:
        """Delete a model that nothing needs."""
        self._models.remove(request.model_id)
        return orchestrator_pb2.DeleteModelResponse()

    def UndeleteModel(
        self, request: orchestrator_pb2.UndeleteModelRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.UndeleteModelResponse:
        """Undelete a model."""
        self._deletions.restore(MODEL, request.model_id)
        return orchestrator_pb2.UndeleteModelResponse(model=self._models.get(request.model_id))

    def ListDeleted(
        self, request: orchestrator_pb2.ListDeletedRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.ListDeletedResponse:
        """List what is deleted and can be undeleted, newest first."""
        found, token = self._deletions.page(request.page, request.kind)
        return orchestrator_pb2.ListDeletedResponse(deleted=found, next_page_token=token)

    def GetStatus(
        self, request: orchestrator_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> orchestrator_pb2.GetStatusResponse:
        """Return the state of all services."""
        return read_status(
            self.address,
            self._launcher.services(),
            self._launcher.absent(),
            active_runs=self._runs.count_active(),
            store_url=self._store.url,
            max_pixels=self._settings.max_pixels,
            waiting=self._runs.waiting(),
        )

    def _forget_spec(self, run_id: str) -> None:
        """Delete the specification of a run that was not queued."""
        with contextlib.suppress(CellsparseError):
            self._store.delete(keys.run_spec(run_id))

    def _check(self, request: orchestrator_pb2.CreateRunRequest) -> None:
        """Refuse a run that cannot train. Whether its dataset is still there is seen when it is queued."""
        backend = request.settings.WhichOneof("backend") or ""
        check_backend(self._launcher, backend)
        self._check_initial_model(request.settings.initial_model, backend)
        if request.dataset_id not in self._trainable:
            self._datasets.get(request.dataset_id)
            self._trainable.check(request.dataset_id)

    def _check_initial_model(self, model_id: str, backend: str) -> None:
        if not model_id:
            return
        try:
            start = self._models.get(model_id)
        except NotFound as error:
            raise NotFound(error.message, "settings.initial_model") from error
        if start.backend != backend:
            raise FailedPrecondition(
                f"initial_model {model_id} is a {start.backend} model; this run trains {backend}.",
                "settings.initial_model",
            )
