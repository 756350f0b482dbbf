"""Warnings from the cluster's events about what Jobs and pods do not report: full quotas, volumes that cannot mount."""

import re

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.settings import Object

WARNINGS = "type=Warning,reason!=FailedScheduling"
"""Field selector. FailedScheduling is left out, because a pod without a node reports the reason in its own status."""
_OF_RUN = re.compile(r"^(.+)-a\d+(?:-\d+-[a-z0-9]+)?$")


def project_event(event: Object) -> Object:
    """Return the parts of an event that are shown."""
    metadata = event["metadata"]
    when = event.get("lastTimestamp") or event.get("eventTime") or metadata["creationTimestamp"]
    return {
        "metadata": {"name": metadata["name"], "created": when},
        "about": event.get("involvedObject", {}).get("name", ""),
        "message": str(event.get("message", "")).strip(),
    }


def about(event: Object) -> str:
    """Return the name of the object that a projected event is about."""
    return str(event["about"])


def newest(events: ObjectCache, name: str) -> str:
    """Return the newest warning about an object; "" if there is none."""
    found = events.group(name)
    return str(found[-1]["message"]) if found else ""


def run_of(name: str) -> str:
    """Return the run id in the name of a Job or of its pod; "" for other names."""
    found = _OF_RUN.match(name)
    return found.group(1) if found else ""
