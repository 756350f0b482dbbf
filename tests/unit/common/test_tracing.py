"""Traces without a collector: what is recorded when, what is handed on, and what the environment asks for."""

import logging
import subprocess
import sys

import pytest

from cellsparse_common import tracing
from cellsparse_common.logs import log_context, trace_id, traceparent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.fixture
def recording(monkeypatch):
    """Traces are recorded, and sent to nobody."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing.start("test")
    yield
    tracing.stop(0.0)
    logging.getLogger("opentelemetry").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_decide(environment, asked):
    assert tracing.wanted(environment) == asked


def test_another_protocol_is_told_in_a_sentence(caplog):
    assert not tracing.wanted({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; allowed is http/protobuf." in caplog.text


def test_without_recording_a_parent_is_handed_on_and_nothing_else():
    with tracing.span("call", parent=PARENT, root=True) as span:
        assert traceparent() == tracing.outgoing() == PARENT
        assert not span.recording
    assert tracing.outgoing() == ""


@pytest.mark.parametrize(
    "sent", ["", "x", PARENT.upper(), PARENT + "-1", "00-" + "0" * 32 + PARENT[35:], "ff" + PARENT[2:], PARENT + "\n"]
)
def test_a_traceparent_that_breaks_the_rules_is_none(sent):
    with tracing.span("call", parent=sent):
        assert traceparent() == ""


def test_a_span_is_the_current_one_inside_and_a_child_of_the_one_before(recording):
    with tracing.span("outer", parent=PARENT):
        outer = traceparent()
        assert trace_id() == PARENT[3:35]
        assert outer[36:52] != PARENT[36:52]
        with tracing.span("inner") as inner:
            assert traceparent() == inner.traceparent != outer
        assert traceparent() == outer
    assert traceparent() == ""


def test_only_a_root_begins_a_trace(recording):
    with tracing.span("a look") as span:
        assert not span.recording
        assert traceparent() == ""
    with tracing.span("a request", root=True) as span:
        assert span.recording


def test_what_a_sampler_left_out_stays_out(recording):
    with tracing.span("call", parent=PARENT[:-2] + "00", root=True) as span:
        assert not span.recording
        assert traceparent().endswith("-00")


def test_calls_on_one_s_own_account_ask_for_no_trace(recording):
    assert tracing.valid(tracing.outgoing()).endswith("-00")
    with log_context(traceparent=PARENT):
        assert tracing.outgoing() == PARENT


def test_imports_and_spans_without_an_endpoint_load_nothing():
    code = (
        "import sys; from cellsparse_common import tracing; from cellsparse_common.rpc import server\n"
        "tracing.start('x')\n"
        "with tracing.span('y', root=True): pass\n"
        "tracing.stop()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PATH": ""}, check=False).returncode == 0
