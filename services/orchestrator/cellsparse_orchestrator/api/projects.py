"""ProjectService: images as tiles, annotations, layers, and trainings on them."""

import hashlib
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import Cancelled, FailedPrecondition, NotFound
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.types import Labels
from cellsparse_common.rpc.retries import repeated
from cellsparse_common.rpc.server import time_left
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.api.runs import OrchestratorServicer, Tables
from cellsparse_orchestrator.caller import caller_metadata
from cellsparse_orchestrator.calls import MessageSource, call_service
from cellsparse_orchestrator.catalogue.deletion import PROJECT
from cellsparse_orchestrator.catalogue.spooling import not_idle, time_limit
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.launchers.base import SPARSIFIER, Launcher
from cellsparse_orchestrator.projects.aliases import Aliases
from cellsparse_orchestrator.projects.annotation import Annotations
from cellsparse_orchestrator.projects.image_upload import Message, receive
from cellsparse_orchestrator.projects.images import ImageAdder
from cellsparse_orchestrator.projects.label_files import LabelImport, chunks, export_labels
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.layers import Layers, Predictor
from cellsparse_orchestrator.projects.prediction import Call, predict_file, predict_image
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_orchestrator.projects.suggestions import Suggester
from cellsparse_orchestrator.projects.training_data import TrainingData, dataset_of_request
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import (
    common_pb2,
    orchestrator_pb2,
    project_pb2,
    project_pb2_grpc,
    sparsifier_pb2,
    sparsifier_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

CHUNK_BYTES = 2**20


class ProjectServicer(project_pb2_grpc.ProjectServiceServicer):
    """Serves projects: rows in the database, tiles in the store.

    Args:
        settings: Limits and times.
        store: The object store.
        database: The database.
        tables: The tables of datasets, runs and models.
        launcher: Knows the trainers.
        orchestrator: Queues runs.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        store: ObjectStore,
        database: Database,
        tables: Tables,
        launcher: Launcher,
        orchestrator: OrchestratorServicer,
    ) -> None:
        self._settings = settings
        self._store = store
        self._tables = tables
        self._launcher = launcher
        self._orchestrator = orchestrator
        self._projects = Projects(database, store)
        self._adder = ImageAdder(database, store, settings.max_project_pixels)
        self._tiles = LabelTiles(database, store)
        self._annotations = Annotations(database, store, self._tiles)
        self._import = LabelImport(self._projects, self._annotations, settings.max_project_pixels)
        self._layers = Layers(database, store)
        self._training_data = TrainingData(database, store, tables.datasets, self._tiles)
        self._suggester = Suggester(database, store, self._tiles, tables.models, tables.datasets, settings.max_pixels)
        self._aliases = Aliases(database)

    def CreateProject(
        self, request: project_pb2.CreateProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.CreateProjectResponse:
        """Make a project."""
        return project_pb2.CreateProjectResponse(project=self._projects.add(request.name))

    def GetProject(
        self, request: project_pb2.GetProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.GetProjectResponse:
        """Return one project."""
        return project_pb2.GetProjectResponse(project=self._projects.get(request.project_id))

    def ListProjects(
        self, request: project_pb2.ListProjectsRequest, context: grpc.ServicerContext
    ) -> project_pb2.ListProjectsResponse:
        """List projects, newest first."""
        found, token = self._projects.page(request.page)
        return project_pb2.ListProjectsResponse(projects=found, next_page_token=token)

    def RenameProject(
        self, request: project_pb2.RenameProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.RenameProjectResponse:
        """Rename a project."""
        return project_pb2.RenameProjectResponse(project=self._projects.rename(request.project_id, request.name))

    def DeleteProject(
        self, request: project_pb2.DeleteProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.DeleteProjectResponse:
        """Delete a project with its images and annotations."""
        self._projects.remove(request.project_id)
        return project_pb2.DeleteProjectResponse()

    def UndeleteProject(
        self, request: project_pb2.UndeleteProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.UndeleteProjectResponse:
        """Undelete a project."""
        self._tables.deletions.restore(PROJECT, request.project_id)
        return project_pb2.UndeleteProjectResponse(project=self._projects.get(request.project_id))

    def AddImage(
        self, request_iterator: Iterator[project_pb2.AddImageRequest], context: grpc.ServicerContext
    ) -> project_pb2.AddImageResponse:
        """Add an image from an upload; nothing is kept unless the whole stream is valid."""
        first, data = self._receive(request_iterator, context, "image file")
        return project_pb2.AddImageResponse(image=self._adder.add(first.header, data))

    def GetImage(
        self, request: project_pb2.GetImageRequest, context: grpc.ServicerContext
    ) -> project_pb2.GetImageResponse:
        """Return one image."""
        return project_pb2.GetImageResponse(image=self._projects.image(request.image_id))

    def ListImages(
        self, request: project_pb2.ListImagesRequest, context: grpc.ServicerContext
    ) -> project_pb2.ListImagesResponse:
        """List a project's images, oldest first."""
        found, token = self._projects.images_page(request.project_id, request.page)
        return project_pb2.ListImagesResponse(images=found, next_page_token=token)

    def DeleteImage(
        self, request: project_pb2.DeleteImageRequest, context: grpc.ServicerContext
    ) -> project_pb2.DeleteImageResponse:
        """Delete an image with its annotation and layers."""
        self._projects.remove_image(request.image_id)
        return project_pb2.DeleteImageResponse()

    def ExportImage(
        self, request: project_pb2.ExportImageRequest, context: grpc.ServicerContext
    ) -> Iterator[project_pb2.ExportImageResponse]:
        """Stream a whole image as a TIFF file."""
        data = self._adder.read(request.image_id)
        for begin in range(0, len(data), CHUNK_BYTES):
            yield project_pb2.ExportImageResponse(chunk=data[begin : begin + CHUNK_BYTES])

    def GetImageTile(
        self, request: project_pb2.GetImageTileRequest, context: grpc.ServicerContext
    ) -> project_pb2.GetImageTileResponse:
        """Return a tile of pixels."""
        return self._projects.image_tile(request)

    def GetLabelTile(
        self, request: project_pb2.GetLabelTileRequest, context: grpc.ServicerContext
    ) -> project_pb2.GetLabelTileResponse:
        """Return a tile of label numbers."""
        return self._tiles.get(request)

    def EditAnnotation(
        self, request: project_pb2.EditAnnotationRequest, context: grpc.ServicerContext
    ) -> project_pb2.EditAnnotationResponse:
        """Apply patches to an annotation."""
        return self._annotations.edit(request)

    def UndoEdit(
        self, request: project_pb2.UndoEditRequest, context: grpc.ServicerContext
    ) -> project_pb2.UndoEditResponse:
        """Take back an author's newest edit."""
        return self._annotations.undo(request.image_id, request.author)

    def RedoEdit(
        self, request: project_pb2.RedoEditRequest, context: grpc.ServicerContext
    ) -> project_pb2.RedoEditResponse:
        """Repeat the edit that an author took back last."""
        return self._annotations.redo(request.image_id, request.author)

    def ListCells(
        self, request: project_pb2.ListCellsRequest, context: grpc.ServicerContext
    ) -> project_pb2.ListCellsResponse:
        """List the cells of an annotation or of a layer."""
        return self._annotations.cells(request)

    def ExportLabels(
        self, request: project_pb2.ExportLabelsRequest, context: grpc.ServicerContext
    ) -> Iterator[project_pb2.ExportLabelsResponse]:
        """Send an annotation, or a layer, as a file."""
        image = self._projects.image(request.image_id)
        for chunk in chunks(export_labels(self._tiles, request, list(image.spacing), image.name)):
            yield project_pb2.ExportLabelsResponse(chunk=chunk)

    def ImportLabels(
        self, request_iterator: Iterator[project_pb2.ImportLabelsRequest], context: grpc.ServicerContext
    ) -> project_pb2.ImportLabelsResponse:
        """Add the labels of an uploaded file where the annotation has none."""
        first, data = self._receive(request_iterator, context, "label file")
        return project_pb2.ImportLabelsResponse(image=self._import.add(first.header, data))

    def PredictLayer(
        self, request: project_pb2.PredictLayerRequest, context: grpc.ServicerContext
    ) -> project_pb2.PredictLayerResponse:
        """Segment an image on a trainer of the model's backend, and keep the result as a layer."""
        sha256, extent = self._projects.blob(request.image_id)
        asked = trainer_pb2.PredictRequest(model_id=request.model_id, min_pixels=request.min_pixels)
        self._projects.name_channels(request.image_id, request.channels, asked)
        if request.HasField("channel"):
            asked.channel = request.channel
        backend, step = self._find_predictor(asked)

        call = self._predict_call(backend, context, self._settings.predict_seconds)
        slow_call = self._predict_call(backend, context, self._settings.evaluate_seconds)
        found = predict_image(
            self._store,
            sha256,
            extent,
            asked,
            call,
            lambda large: self._orchestrator.transfers.predict_data(large, slow_call),
            self._settings.max_pixels,
        )
        predictor = (
            Predictor(run_id=request.model_id, step=found.step)
            if asked.checkpoint
            else Predictor(model_id=request.model_id, step=step)
        )
        layer = self._layers.save(request.image_id, predictor, found.labels, found.scores)
        return project_pb2.PredictLayerResponse(layer=layer)

    def ListLayers(
        self, request: project_pb2.ListLayersRequest, context: grpc.ServicerContext
    ) -> project_pb2.ListLayersResponse:
        """List the layers of an image, newest first."""
        return project_pb2.ListLayersResponse(layers=self._layers.list(request.image_id))

    def DeleteLayer(
        self, request: project_pb2.DeleteLayerRequest, context: grpc.ServicerContext
    ) -> project_pb2.DeleteLayerResponse:
        """Delete a layer."""
        self._layers.remove(request.layer_id)
        return project_pb2.DeleteLayerResponse()

    def CreateProjectDataset(
        self, request: project_pb2.CreateProjectDatasetRequest, context: grpc.ServicerContext
    ) -> project_pb2.CreateProjectDatasetResponse:
        """Make a dataset of the annotated images."""
        return project_pb2.CreateProjectDatasetResponse(dataset=self._training_data.make(request))

    def TrainProject(
        self, request: project_pb2.TrainProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.TrainProjectResponse:
        """Make a dataset of the annotated images and queue a run on it; a repeated request makes one run."""
        project_id = request.dataset.project_id
        run = orchestrator_pb2.CreateRunRequest(settings=request.settings, name=request.name)
        if request.request_id:
            # A call that was killed halfway finds its dataset, and its run, again.
            run.dataset_id = dataset_of_request(project_id, request.request_id)
            run.request_id = hashlib.sha256(run.dataset_id.encode()).hexdigest()
        try:
            self._tables.datasets.get(run.dataset_id)
        except NotFound:
            run.dataset_id = self._training_data.make(request.dataset, run.dataset_id, to_train=True).id
        made = self._orchestrator.CreateRun(run, context).run
        self._projects.add_run(project_id, made.id)
        return project_pb2.TrainProjectResponse(run=made)

    def Suggest(
        self, request: project_pb2.SuggestRequest, context: grpc.ServicerContext
    ) -> project_pb2.SuggestResponse:
        """Suggest which cells and spots of background to mark next."""

        def predict(model_id: str, pixels: npt.NDArray[np.generic], stack: bool) -> Labels:
            asked = trainer_pb2.PredictRequest(model_id=model_id)
            backend, _ = self._find_predictor(asked)
            call = self._predict_call(backend, context, self._settings.predict_seconds)
            shape = pixels.shape[: 3 if stack else 2]
            return predict_file(encode_tiff(pixels, stack=stack), asked, call, shape).labels

        def choose(messages: Iterator[sparsifier_pb2.SuggestCellsRequest]) -> sparsifier_pb2.SuggestCellsResponse:
            source = MessageSource(messages)
            with source.raising():
                answer: sparsifier_pb2.SuggestCellsResponse = call_service(
                    self._launcher,
                    SPARSIFIER,
                    context,
                    self._settings.evaluate_seconds,
                    lambda channel, seconds: sparsifier_pb2_grpc.SparsifierServiceStub(channel).SuggestCells.future(
                        source, timeout=seconds
                    ),
                )
            return answer

        return self._suggester.suggest(request, predict, choose)

    def ListProjectRuns(
        self, request: project_pb2.ListProjectRunsRequest, context: grpc.ServicerContext
    ) -> project_pb2.ListProjectRunsResponse:
        """List a project's runs, newest first."""
        found, token = self._projects.runs_page(request.project_id, request.page)
        return project_pb2.ListProjectRunsResponse(runs=self._tables.runs.several(found), next_page_token=token)

    def GetAlias(
        self, request: project_pb2.GetAliasRequest, context: grpc.ServicerContext
    ) -> project_pb2.GetAliasResponse:
        """Return an alias."""
        return project_pb2.GetAliasResponse(alias=self._aliases.get(request.backend, request.name))

    def SetAlias(
        self, request: project_pb2.SetAliasRequest, context: grpc.ServicerContext
    ) -> project_pb2.SetAliasResponse:
        """Make or replace an alias."""
        return project_pb2.SetAliasResponse(alias=self._aliases.set(request.alias))

    def DeleteAlias(
        self, request: project_pb2.DeleteAliasRequest, context: grpc.ServicerContext
    ) -> project_pb2.DeleteAliasResponse:
        """Delete an alias, if there is one."""
        self._aliases.remove(request.backend, request.name)
        return project_pb2.DeleteAliasResponse()

    def _predict_call(self, backend: str, context: grpc.ServicerContext, most_seconds: float) -> Call:
        """Return what predicts one image file on a trainer of a backend.

        A busy trainer is asked again: an image may take many calls, and those before should not have been in vain.
        """
        gone = threading.Event()
        context.add_callback(gone.set)

        def call(part: trainer_pb2.PredictRequest) -> trainer_pb2.PredictResponse:
            def once(left: float) -> trainer_pb2.PredictResponse:
                answer: trainer_pb2.PredictResponse = call_service(
                    self._launcher,
                    backend,
                    context,
                    left,
                    lambda channel, seconds: trainer_pb2_grpc.TrainerServiceStub(channel).Predict.future(
                        part, timeout=seconds, metadata=caller_metadata(context)
                    ),
                )
                return answer

            return repeated(once, time_left(context, most_seconds), gone.wait)

        return call

    def _find_predictor(self, asked: trainer_pb2.PredictRequest) -> tuple[str, int]:
        """Return backend and step of a model; of a run that is training its backend, and ask for its checkpoint."""
        try:
            model = self._tables.models.get(asked.model_id)
        except NotFound:
            try:
                run = self._tables.runs.get(asked.model_id)
            except NotFound:
                raise NotFound(f"There is no model and no run {asked.model_id!r}.", "model_id") from None
            if run.state in run_states.FINAL:
                state = common_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")
                raise FailedPrecondition(f"Run {run.id} has ended ({state}) without a model.", "model_id") from None
            asked.checkpoint = True
            return str(run.settings.WhichOneof("backend")), 0
        return model.backend, model.step

    def _receive(self, requests: Iterator[Message], context: grpc.ServicerContext, what: str) -> tuple[Message, bytes]:
        with time_limit(context, self._settings.upload_seconds):
            try:
                return receive(
                    not_idle(requests, self._settings.upload_idle_seconds),
                    self._settings.max_project_file_mib * 2**20,
                    what,
                )
            except grpc.RpcError as error:
                raise Cancelled("The upload broke off before it was complete; nothing of it is kept.") from error
