"""Logs as JSON lines on standard error, each with the run and trace it belongs to."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_RUN_ID: ContextVar[str] = ContextVar("run_id", default="")
_TRACE_PARENT: ContextVar[str] = ContextVar("traceparent", default="")


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            "run_id": _RUN_ID.get(),
            "trace_id": trace_id(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in entry.items() if value != ""}, ensure_ascii=False)


def configure_logging(service: str, level: str = "INFO") -> None:
    """Send the process's logs to standard error as JSON lines.

    Args:
        service: Name written into every line.
        level: DEBUG, INFO, WARNING or ERROR.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


@contextmanager
def log_context(*, run_id: str | None = None, traceparent: str | None = None) -> Iterator[None]:
    """Put a run id or a W3C `traceparent` on every log line and outgoing call inside the `with` block."""
    tokens = []
    if run_id is not None:
        tokens.append((_RUN_ID, _RUN_ID.set(run_id)))
    if traceparent is not None:
        tokens.append((_TRACE_PARENT, _TRACE_PARENT.set(traceparent)))
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def traceparent() -> str:
    """Return the W3C `traceparent` of the current context, or an empty string."""
    return _TRACE_PARENT.get()


def trace_id() -> str:
    """Return the trace id (32 hex digits) of the current context, or an empty string."""
    parts = _TRACE_PARENT.get().split("-")
    return parts[1] if len(parts) == 4 else ""
