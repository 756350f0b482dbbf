"""Keep a cache of one kind of object up to date: one list at the start, then a watch for changes.

The pinned Kubernetes client has `kubernetes.informer.SharedInformer` for this. We do not use it yet, for three reasons:
it makes Python objects of every answer, which costs more than all else here with thousands of pods; it has no read
timeout, so a connection that went silent would blind the launcher; and its cache has no groups.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import urllib3

from cellsparse_common.errors import CellsparseError, FailedPrecondition, Unavailable
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.cluster import CALL_SECONDS, call
from cellsparse_orchestrator.launchers.kubernetes.settings import Object

_LOG = logging.getLogger(__name__)
_PAGE = 500
_WATCH_SECONDS = 300
_SILENCE_SECONDS = 150.0
"""After this time two of the API server's bookmarks are overdue, so the connection is dead whatever TCP says."""
_CALM_SECONDS = 5.0
"""A watch that lasted this long does not count as a failure."""
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_BROKEN = (urllib3.exceptions.HTTPError, OSError)


class ResourceWatch(threading.Thread):
    """Fills a cache and keeps it equal to the cluster.

    A broken watch resumes where it was. All objects are listed again only if the API server has forgotten that version
    or refuses.

    Args:
        kind: Name of the kind for logs.
        list_objects: The API's list call of the kind, with its namespace and selector bound.
        project: Returns the parts of an object to keep.
        cache: The cache to fill.

    Attributes:
        complete: Set once the cache has been complete.
        problem: Why the cache may be outdated; empty if it is not.
    """

    def __init__(
        self, kind: str, list_objects: Callable[..., Any], project: Callable[[Object], Object], cache: ObjectCache
    ) -> None:
        super().__init__(name=f"watch-{kind}", daemon=True)
        self._kind = kind
        self._list = list_objects
        self._project = project
        self._cache = cache
        self._version = ""
        self._end = threading.Event()
        self._response: Any = None
        self.complete = threading.Event()
        self.problem = "The Kubernetes API was not asked yet."

    def run(self) -> None:
        """List and watch until `stop`."""
        failures = 0
        while not self._end.is_set():
            began = time.monotonic()
            try:
                if not self._version:
                    self._version = self._fill()
                    self.complete.set()
                self._watch()
            except _BROKEN as error:
                self._report(f"The connection to the Kubernetes API broke: {error}.")
            except Unavailable as error:
                self._report(error.message)
            except CellsparseError as error:
                self._report(error.message)
                self._version = ""
            except Exception as error:  # noqa: BLE001 - logged whole; the launcher would be blind without its watch
                _LOG.exception("the watch of %s failed", self._kind)
                self._report(f"The Kubernetes API sent what is not understood: {error}.")
                self._version = ""
            # Restart a watch that never lasts ever more slowly, whether it fails or just ends.
            failures = 0 if time.monotonic() - began > _CALM_SECONDS else failures + 1
            self._end.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def stop(self) -> None:
        """End the watch; the thread follows."""
        self._end.set()
        response = self._response
        if response is not None:
            with suppress(ValueError, RuntimeError, OSError):  # the response has just ended by itself
                response.shutdown()

    def _report(self, problem: str) -> None:
        if problem != self.problem and not self._end.is_set():
            _LOG.warning("%s cannot be watched now: %s", self._kind, problem)
        self.problem = problem

    def _fill(self) -> str:
        """Read everything, page by page; return the version to watch from."""
        found: dict[str, Object] = {}
        token = ""
        while True:
            page = json.loads(self._ask(limit=_PAGE, _continue=token or None).data)
            for item in page["items"]:
                found[item["metadata"]["name"]] = self._project(item)
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._cache.replace(found)
        return str(page["metadata"]["resourceVersion"])

    def _watch(self) -> None:
        """Apply changes until the server ends the watch, as it does after `_WATCH_SECONDS`."""
        response = self._ask(
            watch=True,
            resource_version=self._version,
            allow_watch_bookmarks=True,
            timeout_seconds=_WATCH_SECONDS,
            _request_timeout=(CALL_SECONDS, _SILENCE_SECONDS),
        )
        self._response = response
        try:
            if self._end.is_set():
                return
            self.problem = ""
            for event in _events(response):
                self._apply(event["type"], event["object"])
        finally:
            self._response = None
            response.close()  # a half-read connection must not be reused

    def _ask(self, **options: Any) -> Any:
        """Call the list operation, without making Python objects of the answer."""
        answer = call(self._list, _preload_content=False, **options)
        if answer is None:
            raise FailedPrecondition(f"The Kubernetes API knows no {self._kind}.")
        return answer

    def _apply(self, kind: str, item: Object) -> None:
        if kind == "ERROR":
            # Usually 410: the server's history does not reach back to our version.
            raise FailedPrecondition(f"The Kubernetes API ended the watch: {item.get('message') or 'no reason given'}.")
        if kind == "DELETED":
            self._cache.drop(item["metadata"]["name"])
        elif kind != "BOOKMARK":
            self._cache.put(self._project(item))
        self._version = str(item["metadata"]["resourceVersion"])


def _events(response: Any) -> Iterator[Object]:
    """Yield the events of a watch, one JSON object per line; a line that breaks off is sent again by the next watch."""
    pending: list[bytes] = []
    for chunk in response.stream(2**16, decode_content=True):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield json.loads(b"".join([*pending, line]))
            pending.clear()
        pending.append(rest)
