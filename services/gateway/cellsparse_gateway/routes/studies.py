"""Studies."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from cellsparse_gateway.answers import Id, PageSize, PageToken, attachment, json_answer, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.events import EventStreams, event
from cellsparse_gateway.messages import enum_number, from_json, to_json
from cellsparse_gateway.routes.runs import After, LastEventId, after_sequence
from cellsparse_gateway.schemas import Schemas, answers, list_of, object_of, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import study_pb2


def router(orchestrator: Orchestrator, schemas: Schemas, streams: EventStreams) -> APIRouter:
    """Return the routes of studies."""
    routes = APIRouter(tags=["studies"])
    study_schema = schemas.ref(study_pb2.Study)
    schemas.ref(study_pb2.WatchStudyResponse)

    @routes.get("/studies", responses=answers(list_of("studies", study_schema)))
    def list_studies(page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List studies, newest first."""
        request = study_pb2.ListStudiesRequest(page={"page_size": page_size, "page_token": page_token})
        return message_answer(orchestrator.studies.ListStudies(request, timeout=ASK_SECONDS))

    @routes.post(
        "/studies",
        status_code=201,
        responses=answers(study_schema, 201),
        openapi_extra=takes(schemas.without(study_pb2.CreateStudyRequest)),
    )
    def create_study(body: Annotated[Any, Depends(json_body)]) -> Response:
        """Begin a study: many runs with different data and settings."""
        request = from_json(study_pb2.CreateStudyRequest, body)
        return message_answer(orchestrator.studies.CreateStudy(request, timeout=ASK_SECONDS).study, 201)

    @routes.get("/studies/{study}", responses=answers(study_schema))
    def get_study(study: Id) -> Response:
        """Answer one study."""
        request = study_pb2.GetStudyRequest(study_id=study)
        return message_answer(orchestrator.studies.GetStudy(request, timeout=ASK_SECONDS).study)

    @routes.delete("/studies/{study}", status_code=204, responses=answers(None, 204))
    def delete_study(study: Id) -> Response:
        """Delete a study that has ended."""
        orchestrator.studies.DeleteStudy(study_pb2.DeleteStudyRequest(study_id=study), timeout=ASK_SECONDS)
        return nothing()

    @routes.post("/studies/{study}/undelete", responses=answers(study_schema))
    def undelete_study(study: Id) -> Response:
        """Undelete a study, as it was."""
        request = study_pb2.UndeleteStudyRequest(study_id=study)
        return message_answer(orchestrator.studies.UndeleteStudy(request, timeout=ASK_SECONDS).study)

    def add_action(word: str, sentence: str, act: Callable[[str], Any]) -> None:
        def action(study: Id) -> Response:
            return message_answer(act(study).study)

        routes.add_api_route(
            f"/studies/{{study}}/{word}",
            action,
            methods=["POST"],
            responses=answers(study_schema),
            name=f"{word}_study",
            description=sentence,
        )

    calls = orchestrator.studies
    add_action(
        "pause",
        "Begin no further runs.",
        lambda study: calls.PauseStudy(study_pb2.PauseStudyRequest(study_id=study), timeout=ASK_SECONDS),
    )
    add_action(
        "resume",
        "Go on after a pause.",
        lambda study: calls.ResumeStudy(study_pb2.ResumeStudyRequest(study_id=study), timeout=ASK_SECONDS),
    )
    add_action(
        "cancel",
        "Cancel all that has not ended.",
        lambda study: calls.CancelStudy(study_pb2.CancelStudyRequest(study_id=study), timeout=ASK_SECONDS),
    )

    @routes.get("/studies/{study}/members", responses=answers(list_of("members", schemas.ref(study_pb2.StudyMember))))
    def list_members(
        study: Id,
        page_size: PageSize = 0,
        page_token: PageToken = "",
        states: Annotated[str, Query(max_length=400, description="States, separated by commas.")] = "",
    ) -> Response:
        """List a study's members in order of their numbers."""
        kinds = study_pb2.MemberState.DESCRIPTOR
        request = study_pb2.ListStudyMembersRequest(
            study_id=study,
            page={"page_size": page_size, "page_token": page_token},
            states=[enum_number(kinds, word.strip(), "states") for word in states.split(",") if word.strip()],
        )
        return message_answer(orchestrator.studies.ListStudyMembers(request, timeout=ASK_SECONDS))

    @routes.get(
        "/studies/{study}/report",
        responses=answers(object_of(complete={"type": "boolean"}, report={"type": "object"})),
    )
    def get_report(study: Id, format: Annotated[str, Query(pattern="^(json|csv)$")] = "json") -> Response:  # noqa: A002
        """Answer a study's report, or its members as a CSV file."""
        request = study_pb2.GetStudyReportRequest(study_id=study)
        report = orchestrator.studies.GetStudyReport(request, timeout=WORK_SECONDS)
        if format == "csv":
            return Response(report.members_csv, media_type="text/csv", headers=attachment(f"{study}.csv"))
        return json_answer({"complete": report.complete, "report": json.loads(report.report_json)})

    def known(study: Id) -> str:
        orchestrator.studies.GetStudy(study_pb2.GetStudyRequest(study_id=study), timeout=ASK_SECONDS)
        return study

    @routes.get("/studies/{study}/events", responses=answers({"type": "string"}, media="text/event-stream"))
    async def watch_study(
        study: Annotated[str, Depends(known)], after: After = None, last_event_id: LastEventId = ""
    ) -> Response:
        """Stream a study's changes until it has ended: `event: study` each, last `event: end`."""
        request = study_pb2.WatchStudyRequest(study_id=study, after_sequence=after_sequence(after, last_event_id))
        return streams.response(lambda **how: orchestrator.studies.WatchStudy(request, **how), _event)

    return routes


def _event(message: study_pb2.WatchStudyResponse) -> bytes:
    return event(message.sequence, "study", to_json(message))
