"""The newest warning about what somebody waits for."""

import pytest

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.warnings import about, newest, project_event, run_of


def event(name, message, **when):
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-11-22T10:00:00Z", "managedFields": [{}]},
        "involvedObject": {"kind": "Pod", "name": "run-1-a1-0-x2b4z"},
        "reason": "FailedMount",
        "message": message,
        "lastTimestamp": None,
        "eventTime": None,
        **when,
    }


def test_the_newest_warning_is_told_in_whatever_field_its_time_is():
    changed = []
    events = ObjectCache(about, changed.append)
    assert newest(events, "run-1-a1-0-x2b4z") == ""
    events.put(project_event(event("a", "secret not found\n", lastTimestamp="2026-11-22T10:00:09Z")))
    events.put(project_event(event("b", "older", eventTime="2026-11-22T10:00:05.123456Z")))
    events.put(project_event(event("c", "oldest")))
    assert newest(events, "run-1-a1-0-x2b4z") == "secret not found"
    assert newest(events, "another") == ""
    assert set(changed) == {"run-1-a1-0-x2b4z"}


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("run-0f3a-a1", "run-0f3a"),
        ("run-0f3a-a12-0-abcde", "run-0f3a"),
        ("run-a12345678901-a1", "run-a12345678901"),
        ("run-a12345678901-a1-0-a1b2c", "run-a12345678901"),
        ("release-cellsparse-orchestrator", ""),
        ("", ""),
    ],
)
def test_the_run_of_an_object(name, run):
    assert run_of(name) == run
