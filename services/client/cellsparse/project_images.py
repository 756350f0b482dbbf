"""Images of projects, added from files and arrays, or from the store."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cellsparse.choices import Choice, is_read_here, read_file_here
from cellsparse.connection import Connection
from cellsparse.items import FILES, Content, Stored, image_bytes
from cellsparse.sources import parts_of, read_parts
from cellsparse_proto.v1 import project_pb2

ADD_SECONDS = 3600.0


def add(
    connection: Connection,
    project_id: str,
    image: "Content | Stored",
    *,
    name: str,
    axes: str,
    spacing: Sequence[float],
    channels: Sequence[str],
    series: int | None,
    time: int | None,
    z: int | None,
) -> project_pb2.ProjectImage:
    """Add an image to a project (see `cellsparse.Client.add_project_image`)."""
    header = project_pb2.AddImageHeader(
        project_id=project_id, name=name or _name_of(image), spacing=spacing, channels=channels
    )
    parts: Iterator[bytes] | None = None
    if not isinstance(image, Stored) and is_read_here(image):
        choice = Choice(series=series, first=time, end=None if time is None else time + 1, single=True, z=z)
        parts = parts_of(read_file_here(Path(str(image)), connection.max_pixels(), axes, choice))
    else:
        if isinstance(image, Stored):
            header.stored = image.path
            time, z = (image.time if time is None else time), (image.z if z is None else z)
        else:
            parts = read_parts(image) if isinstance(image, str | Path) else parts_of(image_bytes(image, axes))
        if isinstance(image, (*FILES, Stored)):  # an array becomes a file that names its axes
            header.axes = axes
        for field, number in (("series", series), ("time", time), ("z", z)):
            if number is not None:
                setattr(header, field, number)
    answer: project_pb2.AddImageResponse = connection.upload("AddImage", _messages(header, parts), timeout=ADD_SECONDS)
    return answer.image


def _messages(
    header: project_pb2.AddImageHeader, parts: Iterator[bytes] | None
) -> Iterator[project_pb2.AddImageRequest]:
    """Yield the messages of an upload; without parts the header alone."""
    make = project_pb2.AddImageRequest
    size = 0
    yield make(header=header)
    if parts is None:
        return
    for part in parts:
        size += len(part)
        yield make(chunk=part)
    yield make(end=project_pb2.FileEnd(size=size))


def _name_of(image: "Content | Stored") -> str:
    if isinstance(image, Stored):
        image = image.path
    return Path(image).name or "image.tif" if isinstance(image, str | Path) else "image.tif"
