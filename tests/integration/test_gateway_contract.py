"""The gateway answers what its description says, whatever is asked: no failure of its own among drawn requests."""

from unittest import SkipTest

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator

EXAMPLES = 15
"""Requests drawn for each operation: as many that fit its description, and as many that do not."""
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

schemathesis.serializer.alias("application/zip", "application/octet-stream")


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with Orchestrator(home) as orchestrator, Gateway(home) as gateway:
        orchestrator.healthy("unet")
        yield schemathesis.openapi.from_url(f"{gateway.api}/openapi.json")


def test_no_request_makes_the_server_fail(schema):
    failures, count = [], 0
    for found in schema.get_all_operations():
        operation = found.ok()
        count += 1
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                _check(operation, mode)
            except (Unsatisfiable, SkipTest):
                assert mode == GenerationMode.NEGATIVE  # nothing could be wrong with it
            except Exception as error:  # noqa: BLE001 - the others are tried, too
                failures.append(f"{operation.label}: {error}")
    assert count > 50
    assert not failures, "\n\n".join(failures)


def _check(operation, mode) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=QUIET,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case) -> None:
        answer = case.call(timeout=PATIENCE)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == ["application/problem+json"]
            assert answer.json()["detail"].endswith(".")

    call()
