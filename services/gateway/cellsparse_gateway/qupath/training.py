"""One training as QuPath asks for it: queue a run, wait for it, answer its model."""

import logging
import time
import uuid
from http import HTTPStatus

from cellsparse_common.errors import CellsparseError, DeadlineExceeded, Unavailable
from cellsparse_gateway.qupath import budget
from cellsparse_gateway.qupath.alias_projects import newest_model, project_runs
from cellsparse_gateway.qupath.bodies import SegmentBody
from cellsparse_gateway.qupath.calls import ASK_SECONDS, Calls
from cellsparse_gateway.qupath.deadlines import Deadline
from cellsparse_gateway.qupath.refusals import Refusal, from_error
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, project_pb2, trainer_pb2

_log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
"""Pause between two looks at a run."""
FINAL = {common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED}
_FAILURES = {
    common_pb2.FAILURE_REASON_USER_ERROR: HTTPStatus.UNPROCESSABLE_ENTITY,
    common_pb2.FAILURE_REASON_EVICTED: HTTPStatus.SERVICE_UNAVAILABLE,
    common_pb2.FAILURE_REASON_UNSCHEDULABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    common_pb2.FAILURE_REASON_LOST: HTTPStatus.SERVICE_UNAVAILABLE,
    common_pb2.FAILURE_REASON_STORAGE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def train(calls: Calls, alias: project_pb2.Alias, body: SegmentBody, seconds: float, deadline: Deadline) -> str:
    """Train on all images of an alias's project, from its newest model on.

    A run of the same project that has not ended, of another gateway or of the page, is waited for first.

    Args:
        calls: The orchestrator.
        alias: The alias, with a project.
        body: The request.
        seconds: How long the training should take at most; see `budget`.
        deadline: Ends the wait. The run goes on.

    Returns:
        The model's id, which is the run's.

    Raises:
        Refusal: The run failed, or did not end in time.
    """
    runs = project_runs(calls, alias.project_id, alias.backend, deadline)
    for run in runs:
        if run.state not in FINAL:
            _wait(calls, run.id, deadline)
            runs = project_runs(calls, alias.project_id, alias.backend, deadline)
    start = newest_model(alias, runs)
    steps = budget.fitting_steps(runs, seconds)
    settings = budget.settings(body, alias.backend, start, steps)
    run, fewer = _wait_or_cut(calls, _begin(calls, alias, settings, deadline), settings, seconds, deadline)
    if fewer:
        settings.steps = fewer
        run = _wait(calls, _begin(calls, alias, settings, deadline), deadline)
    if run.state != common_pb2.RUN_STATE_SUCCEEDED:
        raise _refusal(run)
    return str(run.id)


def _begin(calls: Calls, alias: project_pb2.Alias, settings: trainer_pb2.TrainingSettings, deadline: Deadline) -> str:
    request = project_pb2.TrainProjectRequest(
        dataset=project_pb2.CreateProjectDatasetRequest(project_id=alias.project_id),
        settings=settings,
        request_id=uuid.uuid4().hex,
    )
    return str(calls.work(calls.projects.TrainProject, request, deadline).run.id)


def _wait_or_cut(
    calls: Calls, run_id: str, settings: trainer_pb2.TrainingSettings, seconds: float, deadline: Deadline
) -> tuple[orchestrator_pb2.Run, int | None]:
    """Wait for the end of a run, or cancel it as soon as it shows that it will take far too long.

    Only a run whose steps nobody has set is cancelled.

    Returns:
        The run as it ended, and with how many steps to begin anew, None if not at all.
    """
    if settings.HasField("steps"):
        return _wait(calls, run_id, deadline), None
    began: float | None = None
    while (run := _look(calls, run_id, deadline)).state not in FINAL:
        if run.state == common_pb2.RUN_STATE_RUNNING and began is None:
            began = time.monotonic()
        trained = time.monotonic() - began if began is not None else 0.0
        if fewer := budget.fewer_steps(run, trained, seconds):
            calls.ask(calls.runs.CancelRun, orchestrator_pb2.CancelRunRequest(run_id=run_id), deadline)
            ended = _wait(calls, run_id, deadline)
            return ended, None if ended.state == common_pb2.RUN_STATE_SUCCEEDED else fewer
        deadline.pause(LOOK_SECONDS)
    return run, None


def _wait(calls: Calls, run_id: str, deadline: Deadline) -> orchestrator_pb2.Run:
    """Wait for the end of a run."""
    while (run := _look(calls, run_id, deadline)).state not in FINAL:
        deadline.pause(LOOK_SECONDS)
    return run


def _look(calls: Calls, run_id: str, deadline: Deadline) -> orchestrator_pb2.Run:
    """Return a run as it stands; an orchestrator that does not answer is asked again, since it may be restarting."""
    while True:
        try:
            answer = calls.attempt(
                calls.runs.GetRun, orchestrator_pb2.GetRunRequest(run_id=run_id), deadline.left(ASK_SECONDS)
            )
        except (Unavailable, DeadlineExceeded) as error:
            _log.warning("run %s: the orchestrator does not answer: %s", run_id, error.message)
            deadline.pause(2 * LOOK_SECONDS)
        except CellsparseError as error:
            raise from_error(error) from error
        else:
            run: orchestrator_pb2.Run = answer.run
            return run


def _refusal(run: orchestrator_pb2.Run) -> Refusal:
    """Return what to say of a run that made no model."""
    if run.state == common_pb2.RUN_STATE_CANCELLED:
        message = f"The training was cancelled (run {run.id}); press Training again."
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message)
    status = _FAILURES.get(run.reason, HTTPStatus.BAD_GATEWAY)
    return Refusal(status, f"The training failed (run {run.id}): {run.message}")
