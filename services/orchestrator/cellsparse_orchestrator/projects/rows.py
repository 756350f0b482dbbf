"""Rows of projects, images and layers: finding them, and their protos."""

import json

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.catalogue.limits import read_limits, read_use
from cellsparse_orchestrator.catalogue.owners import owned_projects
from cellsparse_orchestrator.clock import timestamp
from cellsparse_orchestrator.db.tables import LayerRow, ProjectImageRow, ProjectRow, ProjectRunRow
from cellsparse_orchestrator.projects.tiling import Extent
from cellsparse_proto.v1 import project_pb2


def find_project(session: Session, project_id: str, *, lock: bool = False) -> ProjectRow:
    """Return a project's row; with `lock`, locked until the transaction ends. Raises NotFound."""
    query = select(ProjectRow).where(ProjectRow.id == project_id, visible_projects())
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no project {project_id!r}.")
    return row


def find_image(session: Session, image_id: str, *, lock: bool = False) -> ProjectImageRow:
    """Return an image's row; with `lock`, locked until the transaction ends. Raises NotFound."""
    query = select(ProjectImageRow).where(ProjectImageRow.id == image_id, _visible_images())
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no image {image_id!r}.")
    return row


def find_layer(session: Session, layer_id: str, image_id: str = "") -> LayerRow:
    """Return a layer's row, of this image if one is given; raises NotFound."""
    images = select(ProjectImageRow.id).where(ProjectImageRow.id == LayerRow.image_id, _visible_images())
    row = session.scalar(select(LayerRow).where(LayerRow.id == layer_id, images.exists()))
    if row is None or (image_id and row.image_id != image_id):
        raise NotFound(
            f"Image {image_id} has no layer {layer_id!r}." if image_id else f"There is no layer {layer_id!r}."
        )
    return row


def visible_projects() -> ColumnElement[bool]:
    """Return the condition for projects that the caller sees and that are not deleted."""
    return and_(ProjectRow.deleted_at.is_(None), owned_projects())


def owner_of(row: ProjectRow) -> str:
    """Return the project that what is made from a project's annotations belongs to."""
    return row.owner_id or row.id


def _visible_images() -> ColumnElement[bool]:
    return ProjectImageRow.project_id.in_(select(ProjectRow.id).where(visible_projects()))


def extent_of(row: ProjectImageRow) -> Extent:
    """Return the size of an image."""
    return Extent(height=row.height, width=row.width, planes=row.planes)


def project_proto(session: Session, row: ProjectRow) -> project_pb2.Project:
    """Return a project with its counts."""
    images, cells = session.execute(
        select(func.count(), func.coalesce(func.sum(ProjectImageRow.cells), 0)).where(
            ProjectImageRow.project_id == row.id
        )
    ).one()
    annotated = select(func.count()).where(ProjectImageRow.project_id == row.id, ProjectImageRow.labelled_pixels > 0)
    runs = select(func.count()).where(ProjectRunRow.project_id == row.id)
    limits = read_limits(session, row.id)
    return project_pb2.Project(
        limits=limits,
        use=None if limits is None else read_use(session, row.id),
        id=row.id,
        name=row.name,
        created_at=timestamp(row.created_at),
        images=images,
        annotated_images=session.scalar(annotated) or 0,
        cells=int(cells),
        runs=session.scalar(runs) or 0,
    )


def image_proto(row: ProjectImageRow) -> project_pb2.ProjectImage:
    """Return an image."""
    return project_pb2.ProjectImage(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        created_at=timestamp(row.created_at),
        height=row.height,
        width=row.width,
        planes=row.planes,
        channels=row.channels,
        channel_names=json.loads(row.channel_names),
        dtype=row.dtype,
        levels=extent_of(row).levels,
        contrast=[project_pb2.ContrastRange(low=low, high=high) for low, high in json.loads(row.contrast)],
        spacing=json.loads(row.spacing),
        revision=row.revision,
        cells=row.cells,
        labelled_pixels=row.labelled_pixels,
        diameter=row.diameter,
    )


def layer_proto(row: LayerRow) -> project_pb2.Layer:
    """Return a layer."""
    return project_pb2.Layer(
        id=row.id,
        image_id=row.image_id,
        model_id=row.model_id,
        run_id=row.run_id,
        step=row.step,
        created_at=timestamp(row.created_at),
        cells=row.cells,
        revision=row.revision,
    )
