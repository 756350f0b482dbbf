"""StudyService: many runs over a grid of settings."""

from collections.abc import Iterator

import grpc

from cellsparse_common.datasets import read_known_manifest
from cellsparse_common.errors import InvalidArgument, NotFound, Unavailable
from cellsparse_common.rpc.waiting_streams import Pause
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.deletion import STUDY, Deletions
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.launchers.base import Launcher
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.paging import LARGEST
from cellsparse_orchestrator.runs.trainable import check_backend, check_trainable
from cellsparse_orchestrator.studies import report, states
from cellsparse_orchestrator.studies.actions import MEMBERS_CSV, REPORT_JSON
from cellsparse_orchestrator.studies.grid import GridPoint, expand, fill
from cellsparse_orchestrator.studies.label_sets import label_set_id, sparsify_settings
from cellsparse_orchestrator.studies.member_settings import member_settings
from cellsparse_orchestrator.studies.queries import PlannedMember, Studies
from cellsparse_proto.v1 import common_pb2, study_pb2, study_pb2_grpc

_WATCH_SECONDS = 1.0
_NAME_LENGTH = 100


class StudyServicer(study_pb2_grpc.StudyServiceServicer):
    """Serves studies; the reconciler of studies moves them.

    Args:
        store: The object store.
        studies: The tables of studies and members.
        datasets: The table of datasets.
        models: The table of models.
        launcher: Knows the trainers.
        notifier: Is notified of every change of a study.
        deletions: What is deleted.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        studies: Studies,
        datasets: Datasets,
        models: Models,
        launcher: Launcher,
        notifier: Notifier,
        deletions: Deletions,
    ) -> None:
        self._store = store
        self._studies = studies
        self._datasets = datasets
        self._models = models
        self._launcher = launcher
        self._notifier = notifier
        self._deletions = deletions

    def CreateStudy(
        self, request: study_pb2.CreateStudyRequest, context: grpc.ServicerContext
    ) -> study_pb2.CreateStudyResponse:
        """Create a study, or return the study that the same request made before."""
        known = self._studies.find_request(request)
        if known is not None:
            return study_pb2.CreateStudyResponse(study=known)
        grid = fill(request.grid)
        points = expand(grid)
        dataset = self._datasets.get(request.dataset_id)
        split = request.split or common_pb2.SPLIT_TEST
        if split not in (common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST):
            raise InvalidArgument(
                f"split is {common_pb2.Split.Name(split)}; allowed: SPLIT_VAL, SPLIT_TEST: scores on what was trained "
                "on say nothing.",
                "split",
            )
        if not (dataset.val_items if split == common_pb2.SPLIT_VAL else dataset.test_items):
            raise InvalidArgument(
                f"Dataset {dataset.id} has no item of {common_pb2.Split.Name(split)} to score with.", "split"
            )
        check_trainable(read_known_manifest(self._store, dataset.id))
        planned = [_plan(dataset.id, point) for point in points]
        for model_id in sorted({each.settings.initial_model for each in planned} - {""}):
            self._check_model(model_id)
        for backend in grid.backends:
            check_backend(self._launcher, backend)
        name = request.name or f"study of {dataset.name}"[:_NAME_LENGTH]
        return study_pb2.CreateStudyResponse(study=self._studies.add(name, request, grid, planned))

    def GetStudy(self, request: study_pb2.GetStudyRequest, context: grpc.ServicerContext) -> study_pb2.GetStudyResponse:
        """Return one study."""
        return study_pb2.GetStudyResponse(study=self._studies.get(request.study_id))

    def ListStudies(
        self, request: study_pb2.ListStudiesRequest, context: grpc.ServicerContext
    ) -> study_pb2.ListStudiesResponse:
        """List studies, newest first."""
        found, token = self._studies.page(request.page)
        return study_pb2.ListStudiesResponse(studies=found, next_page_token=token)

    def ListStudyMembers(
        self, request: study_pb2.ListStudyMembersRequest, context: grpc.ServicerContext
    ) -> study_pb2.ListStudyMembersResponse:
        """List a study's members in order."""
        found, token = self._studies.members_page(request.study_id, request.page, request.states)
        return study_pb2.ListStudyMembersResponse(members=found, next_page_token=token)

    def WatchStudy(
        self, request: study_pb2.WatchStudyRequest, context: grpc.ServicerContext
    ) -> Iterator[study_pb2.WatchStudyResponse | Pause]:
        """Stream a study's changes until it has ended."""
        after, first = min(request.after_sequence, LARGEST), True
        while context.is_active():
            seen = self._notifier.version(request.study_id)
            changes = self._studies.changes(request.study_id, after)
            more = changes.sequence < changes.study.sequence
            if first or changes.sequence > after:
                yield changes
            after, first = changes.sequence, False
            if changes.study.state in states.FINAL and not more:
                return
            if self._notifier.closed:
                raise Unavailable("The orchestrator is stopping; watch again from the last sequence number seen.")
            if not more:
                yield self._notifier.news(request.study_id, seen, _WATCH_SECONDS)

    def PauseStudy(
        self, request: study_pb2.PauseStudyRequest, context: grpc.ServicerContext
    ) -> study_pb2.PauseStudyResponse:
        """Pause a study: no new member starts."""
        return study_pb2.PauseStudyResponse(study=self._studies.move(request.study_id, states.PAUSED))

    def ResumeStudy(
        self, request: study_pb2.ResumeStudyRequest, context: grpc.ServicerContext
    ) -> study_pb2.ResumeStudyResponse:
        """Resume a paused study."""
        return study_pb2.ResumeStudyResponse(study=self._studies.move(request.study_id, states.RUNNING))

    def CancelStudy(
        self, request: study_pb2.CancelStudyRequest, context: grpc.ServicerContext
    ) -> study_pb2.CancelStudyResponse:
        """Cancel all members that have not ended."""
        return study_pb2.CancelStudyResponse(study=self._studies.move(request.study_id, states.CANCELLING))

    def DeleteStudy(
        self, request: study_pb2.DeleteStudyRequest, context: grpc.ServicerContext
    ) -> study_pb2.DeleteStudyResponse:
        """Delete a study that has ended; a collection removes its report."""
        self._studies.remove(request.study_id)
        return study_pb2.DeleteStudyResponse()

    def UndeleteStudy(
        self, request: study_pb2.UndeleteStudyRequest, context: grpc.ServicerContext
    ) -> study_pb2.UndeleteStudyResponse:
        """Undelete a study."""
        self._deletions.restore(STUDY, request.study_id)
        return study_pb2.UndeleteStudyResponse(study=self._studies.get(request.study_id))

    def GetStudyReport(
        self, request: study_pb2.GetStudyReportRequest, context: grpc.ServicerContext
    ) -> study_pb2.GetStudyReportResponse:
        """Return the stored report, or build one of the results so far."""
        study = self._studies.get(request.study_id)
        if study.state in states.FINAL:
            read = (self._store.get(keys.study_report_file(study.id, name)) for name in (REPORT_JSON, MEMBERS_CSV))
            return study_pb2.GetStudyReportResponse(complete=True, report_json=next(read), members_csv=next(read))
        built = report.build(study, self._studies.members(study.id))
        return study_pb2.GetStudyReportResponse(report_json=report.to_json(built), members_csv=report.to_csv(built))

    def _check_model(self, model_id: str) -> None:
        """Raise NotFound for a model to start from that does not exist, or not for the caller."""
        try:
            self._models.get(model_id)
        except NotFound as error:
            raise NotFound(error.message, "grid.settings") from error


def _plan(dataset_id: str, point: GridPoint) -> PlannedMember:
    """Return the member at a grid point; raises InvalidArgument for settings that are not allowed."""
    member = study_pb2.StudyMember(
        backend=point.backend, seed=point.seed, settings=point.settings, dataset_id=dataset_id
    )
    if point.labels is not None:
        member.mode, member.background, member.k = point.labels.mode, point.labels.background, point.labels.k
        member.dataset_id = label_set_id(dataset_id, sparsify_settings(point.labels, point.seed))
    return PlannedMember(member=member, settings=member_settings(point.backend, point.seed, point.settings))
