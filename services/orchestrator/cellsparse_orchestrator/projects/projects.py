"""The tables of projects and their images, from the clients' side."""

from collections.abc import Sequence

from sqlalchemy import select

from cellsparse_common.channels import MEAN, find_channels
from cellsparse_common.errors import OutOfRange, PermissionDenied
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.caller import new_owner, only_project
from cellsparse_orchestrator.catalogue.limits import set_limits
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectImageRow, ProjectRow, ProjectRunRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_orchestrator.projects.label_tiles import delete_quietly
from cellsparse_orchestrator.projects.rows import (
    extent_of,
    find_image,
    find_project,
    image_proto,
    project_proto,
    visible_projects,
)
from cellsparse_orchestrator.projects.tiling import Extent, Place
from cellsparse_proto.v1 import common_pb2, project_pb2, trainer_pb2


class Projects:
    """Projects and images.

    Args:
        database: The tables.
        store: Holds tiles.
    """

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    def add(self, name: str) -> project_pb2.Project:
        """Make a project."""
        with self._database.write() as session:
            row = ProjectRow(id=new_id("pr"), name=name, created_at=now(), owner_id=new_owner())
            session.add(row)
            session.flush()
            session.refresh(row)
            return project_proto(session, row)

    def get(self, project_id: str) -> project_pb2.Project:
        """Return a project; raises NotFound."""
        with self._database.read() as session:
            return project_proto(session, find_project(session, project_id))

    def page(self, page: common_pb2.PageRequest) -> tuple[list[project_pb2.Project], str]:
        """Return a page, newest first, and the token of the next one."""
        before = decode_token("projects", page.page_token)
        query = select(ProjectRow).where(visible_projects())
        query = query.order_by(ProjectRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(ProjectRow.number < before)
        with self._database.read() as session:
            rows = list(session.scalars(query))
            shown = rows[: page_size(page)]
            found = [project_proto(session, row) for row in shown]
        return found, encode_token("projects", shown[-1].number) if len(rows) > len(shown) else ""

    def rename(self, project_id: str, name: str) -> project_pb2.Project:
        """Give a project another name; raises NotFound."""
        with self._database.write() as session:
            row = find_project(session, project_id, lock=True)
            row.name = name
            session.flush()
            session.refresh(row)
            return project_proto(session, row)

    def set_limits(self, project_id: str, limits: project_pb2.ProjectLimits) -> project_pb2.Project:
        """Set the limits of a project in place of those before; raises NotFound."""
        with self._database.write() as session:
            row = find_project(session, project_id, lock=True)
            set_limits(session, project_id, limits)
            session.flush()
            return project_proto(session, row)

    def remove(self, project_id: str) -> None:
        """Delete a project with its images and annotations; it can be undeleted until it is collected.

        Raises:
            NotFound: There is none.
            PermissionDenied: It is the project of the caller's token, and the caller no administrator.
        """
        with self._database.write() as session:
            if project_id == only_project():
                raise PermissionDenied(
                    f"Project {project_id} is the one of your token; only an administrator may delete it."
                )
            find_project(session, project_id, lock=True).deleted_at = now()

    def image(self, image_id: str) -> project_pb2.ProjectImage:
        """Return an image; raises NotFound."""
        with self._database.read() as session:
            return image_proto(find_image(session, image_id))

    def blob(self, image_id: str) -> tuple[str, Extent]:
        """Return the SHA-256 of an image as it was uploaded, and its size; raises NotFound."""
        with self._database.read() as session:
            row = find_image(session, image_id)
            return row.sha256, extent_of(row)

    def name_channels(self, image_id: str, wanted: Sequence[str], request: trainer_pb2.PredictRequest) -> None:
        """Write into a request which channels are asked for, by number, and the names of the image's channels.

        Raises:
            NotFound: There is no such image.
            InvalidArgument: The image lacks a channel, or one is asked for twice.
        """
        image = self.image(image_id)
        request.image_channels.extend(image.channel_names)
        if wanted:
            found = find_channels(wanted, image.channel_names, image.channels)
            request.channels.extend([str(number) for number in found] or [MEAN])

    def images_page(self, project_id: str, page: common_pb2.PageRequest) -> tuple[list[project_pb2.ProjectImage], str]:
        """Return a page of a project's images, oldest first, and the token of the next one; raises NotFound."""
        after = decode_token("images", page.page_token) or 0
        query = (
            select(ProjectImageRow)
            .where(ProjectImageRow.project_id == project_id, ProjectImageRow.number > after)
            .order_by(ProjectImageRow.number)
            .limit(page_size(page) + 1)
        )
        with self._database.read() as session:
            find_project(session, project_id)
            rows = list(session.scalars(query))
            shown = rows[: page_size(page)]
            found = [image_proto(row) for row in shown]
        return found, encode_token("images", shown[-1].number) if len(rows) > len(shown) else ""

    def remove_image(self, image_id: str) -> None:
        """Delete an image with its annotation and layers; raises NotFound."""
        with self._database.write() as session:
            row = find_image(session, image_id, lock=True)
            prefix = keys.project_image_prefix(row.project_id, row.id)
            session.delete(row)
        delete_quietly(self._store, self._store.list(prefix))

    def image_tile(self, request: project_pb2.GetImageTileRequest) -> project_pb2.GetImageTileResponse:
        """Return a tile of pixels.

        Raises:
            NotFound: There is no such image.
            OutOfRange: There is no such place or channel.
        """
        place = Place(plane=request.place.plane, y=request.place.y, x=request.place.x)
        with self._database.read() as session:
            row = find_image(session, request.image_id)
            height, width = extent_of(row).tile_shape(request.place.level, place)
            project_id, channels = row.project_id, row.channels
        if request.channel >= channels:
            raise OutOfRange(f"The image has no channel {request.channel}; allowed: 0 to {channels - 1}.", "channel")
        key = keys.image_tile(
            project_id,
            request.image_id,
            level=request.place.level,
            plane=place.plane,
            channel=request.channel,
            x=place.x,
            y=place.y,
        )
        return project_pb2.GetImageTileResponse(data=self._store.get(key), height=height, width=width)

    def add_run(self, project_id: str, run_id: str) -> None:
        """Note that a run belongs to a project; raises NotFound. A run that is noted already stays as it is."""
        with self._database.write() as session:
            find_project(session, project_id, lock=True)
            if session.scalar(select(ProjectRunRow).where(ProjectRunRow.run_id == run_id)) is None:
                session.add(ProjectRunRow(project_id=project_id, run_id=run_id))

    def runs_page(self, project_id: str, page: common_pb2.PageRequest) -> tuple[list[str], str]:
        """Return the ids of a page of a project's runs, newest first, and the token of the next one."""
        before = decode_token("project-runs", page.page_token)
        query = select(ProjectRunRow).where(ProjectRunRow.project_id == project_id)
        query = query.order_by(ProjectRunRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(ProjectRunRow.number < before)
        with self._database.read() as session:
            find_project(session, project_id)
            rows = list(session.scalars(query))
            shown = rows[: page_size(page)]
            found = [row.run_id for row in shown]
        return found, encode_token("project-runs", shown[-1].number) if len(rows) > len(shown) else ""
