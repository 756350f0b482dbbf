"""Projects."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from cellsparse_gateway.answers import Id, PageSize, PageToken, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.messages import from_json
from cellsparse_gateway.schemas import Schemas, answers, list_of, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import orchestrator_pb2, project_pb2


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of projects."""
    routes = APIRouter(tags=["projects"])
    project_schema = schemas.ref(project_pb2.Project)

    @routes.get("/projects", responses=answers(list_of("projects", project_schema)))
    def list_projects(page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List projects, newest first."""
        page = {"page_size": page_size, "page_token": page_token}
        request = project_pb2.ListProjectsRequest(page=page)
        return message_answer(orchestrator.projects.ListProjects(request, timeout=ASK_SECONDS))

    @routes.post(
        "/projects",
        status_code=201,
        responses=answers(project_schema, 201),
        openapi_extra=takes(schemas.without(project_pb2.CreateProjectRequest)),
    )
    def create_project(body: Annotated[Any, Depends(json_body)]) -> Response:
        """Make a project."""
        request = from_json(project_pb2.CreateProjectRequest, body)
        return message_answer(orchestrator.projects.CreateProject(request, timeout=ASK_SECONDS).project, 201)

    @routes.get("/projects/{project}", responses=answers(project_schema))
    def get_project(project: Id) -> Response:
        """Answer one project."""
        request = project_pb2.GetProjectRequest(project_id=project)
        return message_answer(orchestrator.projects.GetProject(request, timeout=ASK_SECONDS).project)

    @routes.patch(
        "/projects/{project}",
        responses=answers(project_schema),
        openapi_extra=takes(schemas.without(project_pb2.RenameProjectRequest, "project_id")),
    )
    def rename_project(project: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Rename a project."""
        request = from_json(project_pb2.RenameProjectRequest, body, project_id=project)
        return message_answer(orchestrator.projects.RenameProject(request, timeout=ASK_SECONDS).project)

    @routes.delete("/projects/{project}", status_code=204, responses=answers(None, 204))
    def delete_project(project: Id) -> Response:
        """Delete a project with its images and annotations. Its datasets, runs and models stay."""
        orchestrator.projects.DeleteProject(project_pb2.DeleteProjectRequest(project_id=project), timeout=ASK_SECONDS)
        return nothing()

    @routes.post("/projects/{project}/undelete", responses=answers(project_schema))
    def undelete_project(project: Id) -> Response:
        """Undelete a project, as it was."""
        request = project_pb2.UndeleteProjectRequest(project_id=project)
        return message_answer(orchestrator.projects.UndeleteProject(request, timeout=ASK_SECONDS).project)

    @routes.get(
        "/projects/{project}/runs", tags=["runs"], responses=answers(list_of("runs", schemas.ref(orchestrator_pb2.Run)))
    )
    def list_project_runs(project: Id, page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List a project's runs, newest first."""
        page = {"page_size": page_size, "page_token": page_token}
        request = project_pb2.ListProjectRunsRequest(project_id=project, page=page)
        return message_answer(orchestrator.projects.ListProjectRuns(request, timeout=ASK_SECONDS))

    return routes
