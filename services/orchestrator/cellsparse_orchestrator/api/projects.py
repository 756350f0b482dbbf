"""ProjectService: images as tiles, annotations, layers, and trainings on them."""

from collections.abc import Iterator

import grpc

from cellsparse_common.errors import Cancelled
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.catalogue.spooling import time_limit
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.projects.annotation import Annotations
from cellsparse_orchestrator.projects.image_upload import Message, receive
from cellsparse_orchestrator.projects.images import ImageAdder
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import project_pb2, project_pb2_grpc


class ProjectServicer(project_pb2_grpc.ProjectServiceServicer):
    """Serves projects: rows in the database, tiles in the store.

    Args:
        settings: Limits and times.
        store: The object store.
        database: The database.
    """

    def __init__(self, settings: OrchestratorSettings, store: ObjectStore, database: Database) -> None:
        self._settings = settings
        self._projects = Projects(database, store)
        self._adder = ImageAdder(database, store, settings.max_project_pixels)
        self._tiles = LabelTiles(database, store)
        self._annotations = Annotations(database, store, self._tiles)

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

    def _receive(self, requests: Iterator[Message], context: grpc.ServicerContext, what: str) -> tuple[Message, bytes]:
        with time_limit(context, self._settings.upload_seconds):
            try:
                return receive(requests, self._settings.max_project_file_mib * 2**20, what)
            except grpc.RpcError as error:
                raise Cancelled("The upload broke off before it was complete; nothing of it is kept.") from error
