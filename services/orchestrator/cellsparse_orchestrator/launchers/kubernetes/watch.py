"""Keeps a copy of one kind of objects up to date by a watch: one list at the start, after that only what changes."""

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
"""Two of the API server's bookmarks were due: the connection is dead, whatever TCP says."""
_CALM_SECONDS = 5.0
"""A watch that lasted this long was no failure."""
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_BROKEN = (urllib3.exceptions.HTTPError, OSError)


class ResourceWatch(threading.Thread):
    """Fills a mirror and keeps it equal to the cluster.

    A watch that breaks goes on where it was; all objects are listed again only when the API server has forgotten that
    version, or refuses.

    Args:
        kind: For logs.
        list_objects: The API's list call of the kind, with its namespace and selector bound.
        digest: What is kept of an object.
        mirror: The copy.
    """

    def __init__(
        self, kind: str, list_objects: Callable[..., Any], digest: Callable[[Object], Object], mirror: ObjectCache
    ) -> None:
        super().__init__(name=f"watch-{kind}", daemon=True)
        self._kind = kind
        self._list = list_objects
        self._digest = digest
        self._mirror = mirror
        self._version = ""
        self._end = threading.Event()
        self._response: Any = None
        self.complete = threading.Event()
        """Set once the copy has been whole."""
        self.problem = "The Kubernetes API was not asked yet."
        """Why the copy may be old; empty if it is not."""

    def run(self) -> None:
        """List and watch until `stop`."""
        failures = 0
        while not self._end.is_set():
            began = time.monotonic()
            try:
                if not self._version:
                    self._version = self._fill()
                    self.complete.set()
                self._follow()
            except _BROKEN as error:
                self._say(f"The connection to the Kubernetes API broke: {error}.")
            except Unavailable as error:
                self._say(error.message)
            except CellsparseError as error:
                self._say(error.message)
                self._version = ""
            except Exception as error:  # noqa: BLE001 - logged whole; without its watch a launcher would be blind for good
                _LOG.exception("the watch of %s failed", self._kind)
                self._say(f"The Kubernetes API sent what is not understood: {error}.")
                self._version = ""
            # A watch that never lasts is asked for ever less often, whether it fails or just ends.
            failures = 0 if time.monotonic() - began > _CALM_SECONDS else failures + 1
            self._end.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def stop(self) -> None:
        """End the watch; the thread follows."""
        self._end.set()
        response = self._response
        if response is not None:
            with suppress(ValueError, RuntimeError, OSError):  # it has just ended by itself
                response.shutdown()

    def _say(self, problem: str) -> None:
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
                found[item["metadata"]["name"]] = self._digest(item)
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._mirror.replace(found)
        return str(page["metadata"]["resourceVersion"])

    def _follow(self) -> None:
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
            response.close()  # half read, it must not be used for the next call

    def _ask(self, **options: Any) -> Any:
        """Call the list operation; the answer is not made into objects, which would cost more than all else."""
        answer = call(self._list, _preload_content=False, **options)
        if answer is None:
            raise FailedPrecondition(f"The Kubernetes API knows no {self._kind}.")
        return answer

    def _apply(self, kind: str, item: Object) -> None:
        if kind == "ERROR":
            # Mostly 410: the server's history does not reach back to our version.
            raise FailedPrecondition(f"The Kubernetes API ended the watch: {item.get('message') or 'no reason given'}.")
        if kind == "DELETED":
            self._mirror.drop(item["metadata"]["name"])
        elif kind != "BOOKMARK":
            self._mirror.put(self._digest(item))
        self._version = str(item["metadata"]["resourceVersion"])


def _events(response: Any) -> Iterator[Object]:
    """Yield the events of a watch: JSON objects, one a line; what breaks off in the middle of a line comes again."""
    pending: list[bytes] = []
    for chunk in response.stream(2**16, decode_content=True):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield json.loads(b"".join([*pending, line]))
            pending.clear()
        pending.append(rest)
