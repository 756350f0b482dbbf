"""The gateway answers what its description says, whatever is asked: no failure of its own among drawn requests."""

import hypothesis
import pytest
import schemathesis
from support.gateway import Gateway
from support.orchestrator import Orchestrator

EXAMPLES = 6
"""Requests drawn for each operation; a nightly run may take more."""
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with Orchestrator(home) as orchestrator, Gateway(home) as server:
        orchestrator.healthy("unet")
        yield server


@pytest.fixture(scope="module")
def api_schema(gateway):
    return schemathesis.openapi.from_url(f"{gateway.api}/openapi.json")


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_no_request_makes_the_server_fail(case):
    if case.operation.path.endswith("/projects/sample"):
        pytest.skip("it takes no parameter, and tests of routes make the sample")
    answer = case.call(timeout=300)
    assert answer.status_code < 500, f"{case.method} {case.formatted_path}: {answer.text}"
    if answer.status_code >= 400:
        assert answer.headers["content-type"][0] == PROBLEM
        assert answer.json()["detail"].endswith(".")
    case.validate_response(
        answer,
        checks=[schemathesis.checks.not_a_server_error, *_conformance()],
    )


def _conformance():
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

    return [content_type_conformance, response_schema_conformance]
