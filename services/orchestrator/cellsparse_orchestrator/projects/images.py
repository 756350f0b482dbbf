"""Add an image to a project: decode it, keep it as a blob, write its tiles, then make it visible."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePath

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellsparse_common.channels import clean_names, is_colour
from cellsparse_common.datasets import put_blob
from cellsparse_common.errors import CellsparseError, InvalidArgument
from cellsparse_common.imaging.images import Image, decode_image, encode_tiff
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_common.storage.blobs import read_blob
from cellsparse_orchestrator.catalogue.limits import check_room
from cellsparse_orchestrator.catalogue.stored_zarr import read_stored_zarr
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectImageRow, storable
from cellsparse_orchestrator.projects.label_tiles import delete_quietly, put_all
from cellsparse_orchestrator.projects.pyramid import Pyramid
from cellsparse_orchestrator.projects.rows import find_image, find_project, image_proto, owner_of
from cellsparse_proto.v1 import project_pb2


class ImageAdder:
    """Adds images to projects.

    Args:
        database: The tables.
        store: Receives blob and tiles.
        max_pixels: Largest image, pixels (height x width, of a stack x planes).
    """

    def __init__(self, database: Database, store: ObjectStore, max_pixels: int) -> None:
        self._database = database
        self._store = store
        self._max_pixels = max_pixels

    def check(self, project_id: str) -> None:
        """Raise NotFound unless there is such a project."""
        with self._database.read() as session:
            find_project(session, project_id)

    def read(self, image_id: str) -> bytes:
        """Return an image as a TIFF file.

        Raises:
            NotFound: There is no such image.
            StorageError: The store failed.
        """
        with self._database.read() as session:
            sha256 = find_image(session, image_id).sha256
        return read_blob(self._store, sha256)

    def add(self, header: project_pb2.AddImageHeader, data: bytes) -> project_pb2.ProjectImage:
        """Add an image. Nothing is visible before all its tiles are in the store.

        Raises:
            NotFound: There is no such project, or no such image in the store.
            InvalidArgument: The file is no image, or lacks the part that is asked for.
            ResourceExhausted: It is too large.
            StorageError: The store failed.
        """
        self.check(header.project_id)
        image = self._stored(header) if header.stored else self._decoded(header, data)
        del data
        spacing = list(header.spacing or image.spacing)
        stack = image.axes.startswith("Z")
        if spacing and len(spacing) != 2 + stack:
            raise InvalidArgument(
                f"The spacing has {len(spacing)} numbers; the image has {2 + stack} axes of pixels.", "header.spacing"
            )
        image = replace(image, channels=_channel_names(header, image))
        with self._database.publishing.hold():
            return self._publish(header, image, spacing)

    def _publish(
        self, header: project_pb2.AddImageHeader, image: Image, spacing: list[float]
    ) -> project_pb2.ProjectImage:
        """Store an image and make it visible."""
        stack = image.axes.startswith("Z")
        image_id = new_id("im")
        kept = spacing if stack else ()
        file = encode_tiff(image.array, stack=stack, spacing=kept, colour=is_colour(image.channels))
        sha256, size = put_blob(self._store, file), len(file)
        del file
        try:
            row = self._write(header, image, image_id, sha256, spacing)
            with self._database.write() as session:
                project = find_project(session, header.project_id, lock=True)
                check_room(session, owner_of(project), 1, size)
                row.stored_bytes = size
                row.name = _free_name(session, header.project_id, header.name)
                session.add(row)
                session.flush()
                return image_proto(row)
        except Exception:
            self._forget(header.project_id, image_id)
            raise

    def _decoded(self, header: project_pb2.AddImageHeader, data: bytes) -> Image:
        return decode_image(
            data,
            max_pixels=self._max_pixels,
            stacks=True,
            axes=header.axes,
            series=_given(header, "series"),
            time=_given(header, "time"),
            z=_given(header, "z"),
        )

    def _stored(self, header: project_pb2.AddImageHeader) -> Image:
        """Return an image that is in the store, read chunk by chunk."""
        return read_stored_zarr(
            self._store,
            header.stored,
            max_pixels=self._max_pixels,
            axes=header.axes,
            series=_given(header, "series"),
            time=_given(header, "time"),
            z=_given(header, "z"),
        )

    def _write(
        self, header: project_pb2.AddImageHeader, image: Image, image_id: str, sha256: str, spacing: list[float]
    ) -> ProjectImageRow:
        """Write the tiles of an image and return its row."""
        pyramid = Pyramid(array=image.array, stack=image.axes.startswith("Z"))

        def objects() -> Iterator[tuple[str, Callable[[], bytes]]]:
            for tile in pyramid.tiles():
                key = keys.image_tile(
                    header.project_id,
                    image_id,
                    level=tile.level,
                    plane=tile.place.plane,
                    channel=tile.channel,
                    x=tile.place.x,
                    y=tile.place.y,
                )
                yield key, tile.data

        put_all(self._store, objects())
        extent = pyramid.extent
        return ProjectImageRow(
            id=image_id,
            project_id=header.project_id,
            name=header.name,
            created_at=now(),
            sha256=sha256,
            height=extent.height,
            width=extent.width,
            planes=extent.planes,
            channels=pyramid.channels,
            channel_names=json.dumps(image.channels),
            dtype=pyramid.dtype.name,
            contrast=json.dumps(pyramid.contrast),
            spacing=json.dumps(spacing),
            revision=0,
            next_label=2,
            cells=0,
            labelled_pixels=0,
            diameter=0.0,
        )

    def _forget(self, project_id: str, image_id: str) -> None:
        """Remove the tiles of an image that did not become visible.

        An image whose commit succeeded although its answer was lost keeps them.
        """
        try:
            with self._database.read() as session:
                if session.scalar(select(ProjectImageRow.id).where(ProjectImageRow.id == image_id)) is not None:
                    return
        except CellsparseError:
            return  # they take room and harm nobody
        delete_quietly(self._store, self._store.list(keys.project_image_prefix(project_id, image_id)))


def _given(header: project_pb2.AddImageHeader, name: str) -> int | None:
    return getattr(header, name) if header.HasField(name) else None


def _channel_names(header: project_pb2.AddImageHeader, image: Image) -> tuple[str, ...]:
    """Return the names of an image's channels: those that are given, else those of its file."""
    count = image.array.shape[-1] if image.axes.endswith("C") else 1
    if header.channels and len(header.channels) != count:
        raise InvalidArgument(
            f"There are {len(header.channels)} names of channels; the image has {count}.", "header.channels"
        )
    return clean_names(header.channels, count) if header.channels else image.channels


def numbered(name: str, number: int) -> str:
    """Return a file name with a number before its ending: "a (2).tif"."""
    ending = PurePath(name).suffix
    if len(ending) > 10 or not name.removesuffix(ending):
        ending = ""
    return f"{name.removesuffix(ending)} ({number}){ending}"


def _free_name(session: Session, project_id: str, name: str) -> str:
    """Return a name, with a number behind it if another image of the project has it."""
    # As the column's type stores it, so that equal names are seen as equal.
    name = storable(name)
    taken = set(session.scalars(select(ProjectImageRow.name).where(ProjectImageRow.project_id == project_id)))
    number = 2
    free = name
    while free in taken:
        free = numbered(name, number)
        number += 1
    return free
