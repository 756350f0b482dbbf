"""Projects, and which of their cells to mark next."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import InvalidArgument
from cellsparse_common.rpc.rules import allowed_numbers, takes_number
from cellsparse_proto.v1 import project_pb2, suggestion_pb2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUGGEST_SECONDS = 3600.0
_METHOD: Any = suggestion_pb2.SuggestionMethod.DESCRIPTOR
_KIND: Any = suggestion_pb2.SuggestionKind.DESCRIPTOR
_FIELDS = project_pb2.SuggestRequest.DESCRIPTOR.fields_by_name


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A cell, or a spot of background, to mark next."""

    image_id: str
    """Id of the image; of a dataset, the name of the item."""
    kind: str
    """"cell" or "background"."""
    x: int
    """Left edge of the proposal in the image, pixels."""
    y: int
    """Upper edge of the proposal in the image, pixels."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    score: float
    """How typical the cell is, or how large an error is expected there, 0 to 1; of background how bright it is."""
    reason: str
    """Why, in one sentence."""
    plane: int | None = None
    """Of a stack: the plane that it is in, from 0; None: the image is 2D."""
    data: bytes = field(repr=False)
    """The proposal, compressed: see `values`."""

    def values(self) -> "npt.NDArray[np.uint8]":
        """Return the proposal (height, width): 0 nothing, 1 the cell, 2 background."""
        import numpy as np  # slow to import, and most commands need none

        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """The answer to one question."""

    suggestions: list[Suggestion]
    """Cells in the order of their worth, then spots of background."""
    method: str
    """The method that was used."""
    models: list[str]
    """Ids of the models that predicted; empty without one."""
    images: int
    """Number of images that were looked at."""
    candidates: int
    """Number of candidates that were found in them."""


def projects(connection: Connection) -> Iterator[project_pb2.Project]:
    """Yield all projects, newest first."""
    return connection.pages("ListProjects", project_pb2.ListProjectsRequest, "projects")


def project(connection: Connection, project_id: str) -> project_pb2.Project:
    """Return one project."""
    answer: project_pb2.GetProjectResponse = connection.call(
        "GetProject", project_pb2.GetProjectRequest(project_id=project_id)
    )
    return answer.project


def project_images(connection: Connection, project_id: str) -> Iterator[project_pb2.ProjectImage]:
    """Yield a project's images in the order in which they were added."""

    def request(page: Any) -> project_pb2.ListImagesRequest:
        return project_pb2.ListImagesRequest(project_id=project_id, page=page)

    return connection.pages("ListImages", request, "images")


def suggest(
    connection: Connection,
    project_id: str,
    dataset_id: str,
    *,
    count: int,
    method: str,
    models: Sequence[str],
    max_images: int,
    backgrounds: int | None,
    seed: int,
) -> Suggestions:
    """Return what to mark next (see `cellsparse.Client.suggest`)."""
    if bool(project_id) == bool(dataset_id):
        found = "both are given" if project_id else "neither is given"
        raise InvalidArgument(f"Suggestions are for a project or for a dataset; {found}.", "project")
    given = {"count": count, "max_images": max_images, "backgrounds": backgrounds, "seed": seed}
    for name, value in given.items():
        if value is not None and (value < 0 or not takes_number(_FIELDS[name], value)):
            raise InvalidArgument(f"{name} is {value}; allowed: {allowed_numbers(_FIELDS[name])}.", name)
    request = project_pb2.SuggestRequest(
        project_id=project_id or None,
        dataset_id=dataset_id or None,
        count=count,
        method=enum_names.number(_METHOD, method, "method"),
        model_ids=models,
        max_images=max_images,
        backgrounds=backgrounds,
        seed=seed,
    )
    answer: project_pb2.SuggestResponse = connection.call("Suggest", request, timeout=SUGGEST_SECONDS)
    return Suggestions(
        suggestions=[_suggestion(each) for each in answer.suggestions],
        method=enum_names.name(_METHOD, answer.method),
        models=list(answer.model_ids),
        images=answer.images,
        candidates=answer.candidates,
    )


def methods() -> list[str]:
    """Return the names of the methods."""
    return enum_names.names(_METHOD)


def _suggestion(found: suggestion_pb2.Suggestion) -> Suggestion:
    return Suggestion(
        image_id=found.image_id,
        kind=enum_names.name(_KIND, found.kind),
        x=found.x,
        y=found.y,
        width=found.width,
        height=found.height,
        score=found.score,
        reason=found.reason,
        plane=found.plane if found.HasField("plane") else None,
        data=found.data,
    )
