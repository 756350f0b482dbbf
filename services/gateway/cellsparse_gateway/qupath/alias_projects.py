"""The project behind a client's word for a model: it keeps the images that trained it, with their labels.

The orchestrator holds all of it. What another gateway did, or this one before its end, is therefore found again.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_gateway.qupath.calls import Calls, upload
from cellsparse_gateway.qupath.deadlines import Deadline
from cellsparse_gateway.qupath.pictures import Picture
from cellsparse_gateway.qupath.refusals import Refusal
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, project_pb2

TITLES = {"cellpose": "Cellpose", "stardist": "StarDist", "unet": "ELEPHANT"}
"""Backends, as QuPath's menu names them."""
AUTHOR = "qupath"
_DIGITS = 16
_NAME_LENGTH = 100


def find_alias(calls: Calls, backend: str, name: str, deadline: Deadline) -> project_pb2.Alias:
    """Return an alias; one without project and model if there is none."""
    request = project_pb2.GetAliasRequest(backend=backend, name=name)
    found = calls.find(calls.projects.GetAlias, request, deadline)
    alias: project_pb2.Alias = found.alias if found else project_pb2.Alias(backend=backend, name=name)
    return alias


def open_project(calls: Calls, alias: project_pb2.Alias, deadline: Deadline) -> project_pb2.Alias:
    """Return an alias with a project, which is made where there is none, or none any more."""
    if alias.project_id:
        request = project_pb2.GetProjectRequest(project_id=alias.project_id)
        if calls.find(calls.projects.GetProject, request, deadline):
            return alias
    title = f"QuPath: {TITLES[alias.backend]}, {alias.name}"
    if len(title) > _NAME_LENGTH:
        title = title[: _NAME_LENGTH - 3] + "..."
    made = calls.ask(calls.projects.CreateProject, project_pb2.CreateProjectRequest(name=title), deadline)
    opened = project_pb2.Alias()
    opened.CopyFrom(alias)
    opened.project_id = made.project.id
    answer = calls.ask(calls.projects.SetAlias, project_pb2.SetAliasRequest(alias=opened), deadline)
    kept: project_pb2.Alias = answer.alias
    return kept


def keep_image(
    calls: Calls, project_id: str, picture: Picture, labels: npt.NDArray[np.integer[Any]], deadline: Deadline
) -> None:
    """Add an image with its labels, in place of the same image with older labels.

    The request has no name for the image: images are the same if their pixels are. The older one goes last, so that a
    failure loses no labels.

    Args:
        calls: The orchestrator.
        project_id: The project.
        picture: The image.
        labels: 0 not labelled, 1 background, n >= 2 cell n - 1.
        deadline: Ends the calls.

    Raises:
        Refusal: A call failed; then nothing was added.
    """
    name = f"QuPath {picture.fingerprint()[:_DIGITS]}"
    older = [image for image in _images(calls, project_id, deadline) if image.name.startswith(name)]
    header = project_pb2.AddImageHeader(project_id=project_id, name=name, axes=picture.axes)
    messages = upload(project_pb2.AddImageRequest, header, picture.tiff())
    image_id = calls.work(calls.projects.AddImage, messages, deadline).image.id
    try:
        file = encode_tiff(labels.astype(np.int32))
        drawn = project_pb2.ImportLabelsHeader(
            image_id=image_id, label_kind=dataset_pb2.LABEL_KIND_OFFSET_BY_ONE, author=AUTHOR
        )
        calls.work(calls.projects.ImportLabels, upload(project_pb2.ImportLabelsRequest, drawn, file), deadline)
    except Refusal:
        with contextlib.suppress(Refusal):
            _delete(calls, image_id, deadline)
        raise
    for image in older:
        _delete(calls, image.id, deadline)


def project_runs(
    calls: Calls, project_id: str, backend: str, deadline: Deadline, at_most: int = 200
) -> list[orchestrator_pb2.Run]:
    """Return a project's runs of one backend, newest first."""
    runs = []
    request = project_pb2.ListProjectRunsRequest
    listed = calls.pages(
        calls.projects.ListProjectRuns, lambda page: request(project_id=project_id, page=page), "runs", deadline
    )
    for run in listed:
        if run.backend == backend:
            runs.append(run)
        if len(runs) == at_most:
            break
    return runs


def newest_model(alias: project_pb2.Alias, runs: list[orchestrator_pb2.Run]) -> str:
    """Return the id of an alias's newest model; empty if there is none.

    Args:
        alias: The alias.
        runs: The runs of its project, newest first.
    """
    trained = (run.id for run in runs if run.state == common_pb2.RUN_STATE_SUCCEEDED)
    return next(trained, alias.model_id)


def forget(calls: Calls, alias: project_pb2.Alias, deadline: Deadline) -> None:
    """Delete an alias with its project's images. Runs and models stay.

    Raises:
        Refusal: A call failed.
    """
    request = project_pb2.DeleteAliasRequest(backend=alias.backend, name=alias.name)
    calls.ask(calls.projects.DeleteAlias, request, deadline)
    if alias.project_id:
        project = project_pb2.DeleteProjectRequest(project_id=alias.project_id)
        calls.find(calls.projects.DeleteProject, project, deadline)


def _images(calls: Calls, project_id: str, deadline: Deadline) -> Iterator[project_pb2.ProjectImage]:
    request = project_pb2.ListImagesRequest
    yield from calls.pages(
        calls.projects.ListImages, lambda page: request(project_id=project_id, page=page), "images", deadline
    )


def _delete(calls: Calls, image_id: str, deadline: Deadline) -> None:
    calls.find(calls.projects.DeleteImage, project_pb2.DeleteImageRequest(image_id=image_id), deadline)
