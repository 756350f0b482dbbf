"""Whole projects: as one zip file, and the sample."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from cellsparse_gateway.answers import Id, attachment, file_answer, message_answer
from cellsparse_gateway.archives import read_archive, write_archive
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.sample import NAME, PROJECT, sample_file
from cellsparse_gateway.schemas import FILE, Schemas, answers, takes_file
from cellsparse_gateway.uploads import CHUNK_BYTES, spooled
from cellsparse_proto.v1 import project_pb2


def router(orchestrator: Orchestrator, schemas: Schemas, sample: Path | None) -> APIRouter:
    """Return the routes of whole projects. They stand before those of single projects.

    Args:
        orchestrator: Answers all calls.
        schemas: Receives what the routes answer.
        sample: Image file of the sample; None: the one in the stardist package.
    """
    routes = APIRouter(tags=["projects"])
    project_schema = schemas.ref(project_pb2.Project)

    @routes.post("/projects/sample", status_code=201, responses=answers(project_schema, 201))
    def create_sample() -> Response:
        """Make a project with an image of real nuclei, without annotation."""
        return message_answer(make_sample(orchestrator, sample_file(sample)), 201)

    @routes.post(
        "/projects/archive",
        status_code=201,
        responses=answers(project_schema, 201),
        openapi_extra=takes_file("application/zip"),
    )
    async def import_project(request: Request) -> Response:
        """Make a project of a zip that GET /projects/{project}/archive gave; nothing is kept unless all is good."""
        async with spooled(request) as file:
            project = await run_in_threadpool(read_archive, orchestrator, file)
        return message_answer(project, 201)

    @routes.get("/projects/{project}/archive", responses=answers(FILE, media="application/zip"))
    def export_project(project: Id) -> Response:
        """Answer a project as a zip: images, annotations and names. Runs and models have exports of their own."""
        request = project_pb2.GetProjectRequest(project_id=project)
        found = orchestrator.projects.GetProject(request, timeout=ASK_SECONDS).project
        return file_answer(write_archive(orchestrator, found), "application/zip", attachment(f"{found.name}.zip"))

    return routes


def make_sample(orchestrator: Orchestrator, file: Path) -> project_pb2.Project:
    """Make the sample project.

    Raises:
        grpc.RpcError: A call failed; no project is left then.
    """
    made: project_pb2.Project = orchestrator.projects.CreateProject(
        project_pb2.CreateProjectRequest(name=PROJECT), timeout=ASK_SECONDS
    ).project
    data = file.read_bytes()
    make = project_pb2.AddImageRequest
    messages = [make(header=project_pb2.AddImageHeader(project_id=made.id, name=NAME))]
    messages += [make(chunk=data[begin : begin + CHUNK_BYTES]) for begin in range(0, len(data), CHUNK_BYTES)]
    messages.append(make(end=project_pb2.FileEnd(size=len(data))))
    try:
        orchestrator.projects.AddImage(iter(messages), timeout=WORK_SECONDS)
    except Exception:
        orchestrator.projects.DeleteProject(project_pb2.DeleteProjectRequest(project_id=made.id), timeout=ASK_SECONDS)
        raise
    found: project_pb2.GetProjectResponse = orchestrator.projects.GetProject(
        project_pb2.GetProjectRequest(project_id=made.id), timeout=ASK_SECONDS
    )
    return found.project
