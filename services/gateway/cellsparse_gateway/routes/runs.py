"""Runs and their events."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response

from cellsparse_gateway.answers import Id, OptionalId, PageSize, PageToken, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.events import EventStreams, event
from cellsparse_gateway.messages import enum_number, from_json, to_json
from cellsparse_gateway.schemas import Schemas, answers, list_of, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

Backend = Annotated[str, Query(pattern="^[a-z0-9_]{0,32}$")]
After = Annotated[
    int | None, Query(ge=0, le=2**63 - 1, description="Only later events; else as the header Last-Event-ID says.")
]
LastEventId = Annotated[str, Header(description="Sequence number of the last event received.", max_length=32)]


def router(orchestrator: Orchestrator, schemas: Schemas, streams: EventStreams) -> APIRouter:
    """Return the routes of runs."""
    routes = APIRouter(tags=["runs"])
    run_schema = schemas.ref(orchestrator_pb2.Run)
    schemas.ref(orchestrator_pb2.RunEvent)
    deleted_schema = schemas.ref(orchestrator_pb2.Deleted)

    @routes.get("/runs", responses=answers(list_of("runs", run_schema)))
    def list_runs(
        page_size: PageSize = 0,
        page_token: PageToken = "",
        states: Annotated[str, Query(max_length=400, description="States, separated by commas.")] = "",
        backend: Backend = "",
        dataset_id: OptionalId = "",
    ) -> Response:
        """List runs, newest first."""
        kinds = common_pb2.RunState.DESCRIPTOR
        request = orchestrator_pb2.ListRunsRequest(
            page={"page_size": page_size, "page_token": page_token},
            states=[enum_number(kinds, word.strip(), "states") for word in states.split(",") if word.strip()],
            backend=backend,
            dataset_id=dataset_id,
        )
        return message_answer(orchestrator.runs.ListRuns(request, timeout=ASK_SECONDS))

    @routes.post(
        "/runs",
        status_code=201,
        responses=answers(run_schema, 201),
        openapi_extra=takes(schemas.without(orchestrator_pb2.CreateRunRequest)),
    )
    def create_run(body: Annotated[Any, Depends(json_body)]) -> Response:
        """Queue a run."""
        request = from_json(orchestrator_pb2.CreateRunRequest, body)
        return message_answer(orchestrator.runs.CreateRun(request, timeout=ASK_SECONDS).run, 201)

    @routes.post(
        "/runs/batch",
        status_code=201,
        responses=answers(list_of("runs", run_schema), 201),
        openapi_extra=takes(schemas.without(orchestrator_pb2.CreateRunsRequest)),
    )
    def create_runs(body: Annotated[Any, Depends(json_body)]) -> Response:
        """Queue up to 100 runs at once: all of them, or none if one is refused."""
        request = from_json(orchestrator_pb2.CreateRunsRequest, body)
        return message_answer(orchestrator.runs.CreateRuns(request, timeout=ASK_SECONDS), 201)

    @routes.get("/runs/{run}", responses=answers(run_schema))
    def get_run(run: Id) -> Response:
        """Answer one run."""
        request = orchestrator_pb2.GetRunRequest(run_id=run)
        return message_answer(orchestrator.runs.GetRun(request, timeout=ASK_SECONDS).run)

    @routes.post("/runs/{run}/cancel", responses=answers(run_schema))
    def cancel_run(run: Id) -> Response:
        """Cancel a run; one that has ended stays as it is."""
        request = orchestrator_pb2.CancelRunRequest(run_id=run)
        return message_answer(orchestrator.runs.CancelRun(request, timeout=ASK_SECONDS).run)

    @routes.delete("/runs/{run}", status_code=204, responses=answers(None, 204))
    def delete_run(run: Id) -> Response:
        """Delete a run that has ended, with its checkpoints and logs. Its model stays."""
        orchestrator.runs.DeleteRun(orchestrator_pb2.DeleteRunRequest(run_id=run), timeout=ASK_SECONDS)
        return nothing()

    @routes.post("/runs/{run}/undelete", responses=answers(run_schema))
    def undelete_run(run: Id) -> Response:
        """Undelete a run, as it was."""
        request = orchestrator_pb2.UndeleteRunRequest(run_id=run)
        return message_answer(orchestrator.runs.UndeleteRun(request, timeout=ASK_SECONDS).run)

    @routes.get("/deleted", tags=["deleted"], responses=answers(list_of("deleted", deleted_schema)))
    def list_deleted(
        page_size: PageSize = 0,
        page_token: PageToken = "",
        kind: Annotated[str, Query(pattern="^(|dataset|run|model|study|project)$")] = "",
    ) -> Response:
        """List what is deleted and can be undeleted, newest deletion first."""
        number: Any = enum_number(orchestrator_pb2.DeletedKind.DESCRIPTOR, kind, "kind") if kind else 0
        page = {"page_size": page_size, "page_token": page_token}
        request = orchestrator_pb2.ListDeletedRequest(page=page, kind=number)
        return message_answer(orchestrator.runs.ListDeleted(request, timeout=ASK_SECONDS))

    def known(run: Id) -> str:
        orchestrator.runs.GetRun(orchestrator_pb2.GetRunRequest(run_id=run), timeout=ASK_SECONDS)
        return run

    @routes.get("/runs/{run}/events", responses=answers({"type": "string"}, media="text/event-stream"))
    async def watch_run(
        run: Annotated[str, Depends(known)], after: After = None, last_event_id: LastEventId = ""
    ) -> Response:
        """Stream a run's events until it has ended: `event: run` with a RunEvent each, last `event: end`."""
        request = orchestrator_pb2.WatchRunRequest(run_id=run, after_sequence=after_sequence(after, last_event_id))
        return streams.response(lambda **how: orchestrator.runs.WatchRun(request, **how), _event)

    return routes


def after_sequence(after: int | None, last_event_id: str) -> int:
    """Return the sequence number after which events are asked for: of a repeated connection the header's."""
    header = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else None
    return min(header if header is not None else (after or 0), 2**63 - 1)


def _event(message: orchestrator_pb2.WatchRunResponse) -> bytes:
    return event(message.event.sequence, "run", to_json(message.event))
