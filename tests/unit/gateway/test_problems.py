"""Statuses of gRPC as those of HTTP, and problem documents."""

import json

import grpc
import pytest

from cellsparse_common import errors
from cellsparse_gateway.problems import HTTP_STATUSES, Problem, from_error, respond


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidArgument("x is 1."), 422),
        (errors.NotFound("There is no x."), 404),
        (errors.AlreadyExists("x is there."), 409),
        (errors.FailedPrecondition("x first."), 409),
        (errors.ResourceExhausted("Too many calls."), 429),
        (errors.Busy("The prediction is number 7 in line, and 4 may wait at once."), 429),
        (errors.Busy("All 60 MiB of pixels are taken."), 429),
        (errors.ResourceExhausted("The image is larger than 60 MiB, the most allowed."), 413),
        (errors.Unavailable("No trainer answers."), 503),
        (errors.StorageError("The store is full."), 503),
        (errors.DeadlineExceeded("It took too long."), 504),
        (errors.Cancelled("It was cancelled."), 503),
        (errors.Internal("A bug."), 500),
    ],
)
def test_each_error_has_its_status_and_keeps_its_sentence(error, status):
    problem = from_error(error)
    assert (problem.status, problem.detail) == (status, error.message)


def test_every_status_of_grpc_but_our_own_faults_is_mapped():
    ours = {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
    assert set(HTTP_STATUSES) == set(grpc.StatusCode) - ours
    assert from_error(errors.Internal("Edited."), grpc.StatusCode.ABORTED).status == 409


def test_a_problem_names_fields_and_when_to_try_again():
    answer = respond(Problem(422, "x is 1.", [("x", "x is 1.")]))
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "x is 1.",
        "errors": [{"field": "x", "detail": "x is 1."}],
    }
    assert respond(Problem(503, "Not now.")).headers["retry-after"] == "1"
    assert respond(from_error(errors.Busy("Later.", retry_seconds=2.5))).headers["retry-after"] == "3"
