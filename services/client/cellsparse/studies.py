"""Studies: the calls, and a handle that waits."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import RunFailedError
from cellsparse.reconnect import ASK_SECONDS, PATIENCE_SECONDS, STREAM_SECONDS, OnLost, reconnecting
from cellsparse.study_report import StudyReport
from cellsparse_proto.v1 import study_pb2

FINAL = frozenset({study_pb2.STUDY_STATE_SUCCEEDED, study_pb2.STUDY_STATE_FAILED, study_pb2.STUDY_STATE_CANCELLED})
REPORT_SECONDS = 120.0


@dataclass(frozen=True)
class StudyHandle:
    """Handle of a study."""

    id: str
    connection: Connection = field(repr=False, compare=False)

    def info(self) -> study_pb2.Study:
        """Return the current state of the study."""
        return get(self.connection, self.id)

    def members(self) -> Iterator[study_pb2.StudyMember]:
        """Yield its members in their order."""
        return members(self.connection, self.id)

    def watch(self) -> Iterator[study_pb2.WatchStudyResponse]:
        """Yield its changes until it has ended (see `watch`)."""
        return watch(self.connection, self.id)

    def wait(self) -> study_pb2.Study:
        """Wait until the study has ended.

        Returns:
            The study, SUCCEEDED: at least one member has scores.

        Raises:
            RunFailedError: None has, or it was cancelled.
        """
        for _ in self.watch():
            pass
        study = self.info()
        if study.state != study_pb2.STUDY_STATE_SUCCEEDED:
            state = enum_names.name(study_pb2.StudyState.DESCRIPTOR, study.state)
            raise RunFailedError(f"Study {study.id} {state}: {study.message}")
        return study

    def pause(self) -> study_pb2.Study:
        """Start no more members."""
        return change(self.connection, self.id, "Pause")

    def resume(self) -> study_pb2.Study:
        """Resume the study."""
        return change(self.connection, self.id, "Resume")

    def cancel(self) -> study_pb2.Study:
        """Cancel all members that have not ended."""
        return change(self.connection, self.id, "Cancel")

    def report(self) -> StudyReport:
        """Return its report; of a running study, the results so far."""
        return report(self.connection, self.id)


def create(connection: Connection, request: study_pb2.CreateStudyRequest) -> StudyHandle:
    """Start a study."""
    return StudyHandle(connection.call("CreateStudy", request).study.id, connection)


def get(connection: Connection, study_id: str, *, timeout: float | None = None) -> study_pb2.Study:
    """Return one study."""
    request = study_pb2.GetStudyRequest(study_id=study_id)
    answer: study_pb2.GetStudyResponse = connection.call("GetStudy", request, timeout=timeout)
    return answer.study


def listed(connection: Connection) -> Iterator[study_pb2.Study]:
    """Yield all studies, newest first, page by page."""
    return connection.pages("ListStudies", study_pb2.ListStudiesRequest, "studies")


def members(connection: Connection, study_id: str) -> Iterator[study_pb2.StudyMember]:
    """Yield a study's members in their order, page by page."""

    def request(page: Any) -> study_pb2.ListStudyMembersRequest:
        return study_pb2.ListStudyMembersRequest(study_id=study_id, page=page)

    return connection.pages("ListStudyMembers", request, "members")


def change(connection: Connection, study_id: str, how: str) -> study_pb2.Study:
    """Pause, resume or cancel a study.

    Args:
        connection: Connection to the orchestrator of the study.
        study_id: The study.
        how: "Pause", "Resume" or "Cancel".
    """
    request = getattr(study_pb2, f"{how}StudyRequest")(study_id=study_id)
    study: study_pb2.Study = connection.call(f"{how}Study", request).study
    return study


def delete(connection: Connection, study_id: str) -> None:
    """Delete a study that has ended."""
    connection.call("DeleteStudy", study_pb2.DeleteStudyRequest(study_id=study_id))


def report(connection: Connection, study_id: str) -> StudyReport:
    """Return a study's report."""
    request = study_pb2.GetStudyReportRequest(study_id=study_id)
    answer: study_pb2.GetStudyReportResponse = connection.call("GetStudyReport", request, timeout=REPORT_SECONDS)
    return StudyReport(
        complete=answer.complete, document=json.loads(answer.report_json), members_csv=answer.members_csv
    )


def watch(
    connection: Connection,
    study_id: str,
    after: int = 0,
    *,
    patience: float = PATIENCE_SECONDS,
    on_lost: OnLost = lambda *_: None,
    on_back: Callable[[], None] = lambda: None,
) -> Iterator[study_pb2.WatchStudyResponse]:
    """Yield a study's changes until it has ended; survives outages (see `cellsparse.reconnect`).

    Args:
        connection: Connection to the orchestrator of the study.
        study_id: The study.
        after: Sequence number of the last change already seen; 0 for all.
        patience: Seconds without an answer after which to give up.
        on_lost: Called with the error and the seconds left, each time the orchestrator does not answer.
        on_back: Called when it answers again.

    Raises:
        Unavailable: It did not answer for `patience` seconds.
        NotFound: There is no such study.
    """
    seen = after

    def changes() -> Iterator[study_pb2.WatchStudyResponse]:
        nonlocal seen
        request = study_pb2.WatchStudyRequest(study_id=study_id, after_sequence=seen)
        for answer in connection.stream("WatchStudy", request, timeout=STREAM_SECONDS):
            seen = answer.sequence
            yield answer

    def ended() -> bool:
        return get(connection, study_id, timeout=ASK_SECONDS).state in FINAL

    return reconnecting(connection, changes, ended, patience=patience, on_lost=on_lost, on_back=on_back)
