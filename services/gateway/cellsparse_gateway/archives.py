"""A project as one zip file: images, annotations, and names.

`project.json` lists the images in their order. `images/N.tif` is an image as it is trained on, `annotations/N.tif` its
annotation: int32, -1 not labelled, 0 background, n > 0 cell n, so that the file says what was labelled as well. An
image without a label has no annotation.
"""

import json
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.answers import received
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.zip_files import open_zip, read_member, read_small
from cellsparse_proto.v1 import dataset_pb2, project_pb2

VERSION = 1
KIND = "cellsparse project"
MAX_DESCRIPTION_BYTES = 16 * 2**20
MAX_IMAGES = 10_000


class _Pipe:
    """Takes what a zip writer writes, and gives it away in parts."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing."""

    def taken(self) -> bytes:
        """Return all bytes since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def write_archive(orchestrator: Orchestrator, project: project_pb2.Project) -> Iterator[bytes]:
    """Yield a project's zip file in parts, holding about one MiB at a time.

    Raises:
        grpc.RpcError: A call failed.
    """
    pipe = _Pipe()
    images = list(
        orchestrator.pages(
            orchestrator.projects.ListImages,
            lambda **page: project_pb2.ListImagesRequest(project_id=project.id, **page),
            "images",
        )
    )
    # Images and labels are compressed files already.
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        archive.writestr("project.json", json.dumps(_describe(project, images), indent=1, ensure_ascii=False))
        yield pipe.taken()
        for number, image in enumerate(images, 1):
            request = project_pb2.ExportImageRequest(image_id=image.id)
            call = orchestrator.projects.ExportImage(request, timeout=WORK_SECONDS)
            yield from _member(archive, pipe, f"images/{number}.tif", received(call))
            if image.labelled_pixels:
                labels = project_pb2.ExportLabelsRequest(image_id=image.id)
                call = orchestrator.projects.ExportLabels(labels, timeout=WORK_SECONDS)
                yield from _member(archive, pipe, f"annotations/{number}.tif", received(call))
    yield pipe.taken()


def _describe(project: project_pb2.Project, images: list[project_pb2.ProjectImage]) -> dict[str, Any]:
    entries = [
        {
            "name": image.name,
            "image": f"images/{number}.tif",
            **({"annotation": f"annotations/{number}.tif"} if image.labelled_pixels else {}),
            "spacing": list(image.spacing),
            "channels": list(image.channel_names),
        }
        for number, image in enumerate(images, 1)
    ]
    return {"kind": KIND, "version": VERSION, "name": project.name, "images": entries}


def _member(archive: zipfile.ZipFile, pipe: _Pipe, name: str, parts: Iterator[bytes]) -> Iterator[bytes]:
    with archive.open(name, "w", force_zip64=True) as file:
        for part in parts:
            file.write(part)
            yield pipe.taken()


def read_archive(orchestrator: Orchestrator, file: IO[bytes]) -> project_pb2.Project:
    """Make a project of a zip file that `write_archive` wrote. Nothing is kept unless all of it is good.

    Raises:
        InvalidArgument: The file is not such a zip.
        grpc.RpcError: A call failed.
    """
    with open_zip(file) as archive:
        description = _description(archive)
        request = project_pb2.CreateProjectRequest(name=description["name"])
        project = orchestrator.projects.CreateProject(request, timeout=ASK_SECONDS).project
        try:
            for entry in description["images"]:
                _add(orchestrator, archive, project.id, entry)
        except BaseException:
            orchestrator.projects.DeleteProject(
                project_pb2.DeleteProjectRequest(project_id=project.id), timeout=ASK_SECONDS
            )
            raise
    found: project_pb2.GetProjectResponse = orchestrator.projects.GetProject(
        project_pb2.GetProjectRequest(project_id=project.id), timeout=ASK_SECONDS
    )
    return found.project


def _description(archive: zipfile.ZipFile) -> dict[str, Any]:
    data = read_small(archive, "project.json", MAX_DESCRIPTION_BYTES)
    try:
        content = json.loads(data)
        if content["kind"] != KIND or int(content["version"]) > VERSION:
            raise InvalidArgument(f"project.json is of kind {content['kind']!r}, version {content['version']!r}.")
        entries = [
            {"name": str(entry["name"]), "image": str(entry["image"]), "annotation": str(entry.get("annotation") or "")}
            | {"spacing": [float(value) for value in entry.get("spacing") or []]}
            | {"channels": [str(name) for name in entry.get("channels") or []]}
            for entry in content["images"]
        ]
        if len(entries) > MAX_IMAGES:
            raise InvalidArgument(f"project.json lists {len(entries)} images; allowed: at most {MAX_IMAGES}.")
        return {"name": str(content["name"]), "images": entries}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("project.json in the zip is not what an exported project has.") from None


def _add(orchestrator: Orchestrator, archive: zipfile.ZipFile, project_id: str, entry: dict[str, Any]) -> None:
    header = project_pb2.AddImageHeader(
        project_id=project_id, name=entry["name"], spacing=entry["spacing"], channels=entry["channels"]
    )
    image = _send(
        orchestrator.projects.AddImage, project_pb2.AddImageRequest, header, read_member(archive, entry["image"])
    ).image
    if entry["annotation"]:
        labels = project_pb2.ImportLabelsHeader(image_id=image.id, label_kind=dataset_pb2.LABEL_KIND_INSTANCES)
        parts = read_member(archive, entry["annotation"])
        _send(orchestrator.projects.ImportLabels, project_pb2.ImportLabelsRequest, labels, parts)


def _send(method: Any, make: Any, header: Any, parts: Iterator[bytes]) -> Any:
    failure: list[InvalidArgument] = []

    def messages() -> Iterator[Any]:
        yield make(header=header)
        size = 0
        try:
            for part in parts:
                size += len(part)
                yield make(chunk=part)
        except InvalidArgument as error:
            failure.append(error)
            yield make()  # without its end the orchestrator refuses the upload
            return
        yield make(end={"size": size})

    try:
        return method(messages(), timeout=WORK_SECONDS)
    except Exception:
        if failure:
            raise failure[0] from None
        raise
