"""A store whose calls are part of the trace that they are made in."""

from collections.abc import Callable
from typing import Any, cast

from cellsparse_common import tracing
from cellsparse_common.errors import NotFound
from cellsparse_common.storage.protocol import ObjectStore

_RECORDED = frozenset({"delete", "exists", "fetch", "get", "put", "size"})
"""Methods that return when all is done; `read` and `list` last as long as their reader."""


def traced(store: ObjectStore) -> ObjectStore:
    """Return the store; if traces are recorded, one that records its calls."""
    return cast(ObjectStore, _TracedStore(store)) if tracing.service() else store


class _TracedStore:
    """Passes everything on, and records those calls that belong to a trace."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return _recorded(found, f"store {name}") if name in _RECORDED else found


def _recorded(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(key: str, *args: Any, **named: Any) -> Any:
        with tracing.span(name, kind="client", attributes={"cellsparse.key": key}) as span:
            try:
                return method(key, *args, **named)
            except NotFound as error:  # an answer, such as that there is no checkpoint yet
                span.set("cellsparse.found", False)
                missing = error
        raise missing

    return call
