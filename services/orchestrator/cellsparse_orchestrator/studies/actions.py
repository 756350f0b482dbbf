"""The actions of a study's member: make its label set, queue its run, score its model. All are idempotent."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from cellsparse_common.datasets import read_known_manifest, read_manifest
from cellsparse_common.errors import Internal, NotFound, ResourceExhausted
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.calls import open_stream
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.references import own_bytes
from cellsparse_orchestrator.launchers.base import SPARSIFIER, Launcher
from cellsparse_orchestrator.launchers.wake_queue import Waiter
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_orchestrator.runs.trainable import check_trainable
from cellsparse_orchestrator.studies import report
from cellsparse_orchestrator.studies.label_sets import LabelSet, label_set_name, sparsify_settings
from cellsparse_orchestrator.studies.transitions import MemberTask, StudyTransitions
from cellsparse_proto.v1 import (
    common_pb2,
    dataset_pb2,
    orchestrator_pb2,
    sparsifier_pb2,
    sparsifier_pb2_grpc,
    study_pb2,
    trainer_pb2,
    trainer_pb2_grpc,
)

REPORT_JSON, MEMBERS_CSV = "report.json", "members.csv"
"""File names of a report in the store."""
_NAME_LENGTH = 100


class MemberActions:
    """Carries out actions in the caller's thread.

    Args:
        progress: The studies.
        datasets: The table of datasets.
        runs: The table of runs.
        store: The object store.
        launcher: Knows sparsifier and trainers.
        seconds: Longest time of one sparsification or evaluation.
    """

    def __init__(
        self,
        transitions: StudyTransitions,
        *,
        datasets: Datasets,
        runs: Runs,
        store: ObjectStore,
        launcher: Launcher,
        seconds: float,
    ) -> None:
        self._transitions = transitions
        self._datasets = datasets
        self._runs = runs
        self._store = store
        self._launcher = launcher
        self._seconds = seconds
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, int], Any] = {}
        self._ending = False

    def sparsify(self, task: MemberTask) -> None:
        """Make a member's label set, unless it exists.

        Raises:
            CellsparseError: The sparsifier is away or refuses, or the store or the database failed.
        """
        with self._datasets.publishing.hold():
            self._sparsify(task)

    def _sparsify(self, task: MemberTask) -> None:
        try:
            self._datasets.get(task.member.dataset_id)
            return
        except NotFound:
            source = self._datasets.get(task.study.dataset_id)
        if self._datasets.revive(task.member.dataset_id) is not None:
            return
        grid, member = task.study.grid, task.member
        labels = LabelSet(
            mode=member.mode,
            background=member.background,
            k=member.k,
            distance=grid.background_distance if grid.HasField("background_distance") else None,
        )
        settings = sparsify_settings(labels, member.seed)
        request = sparsifier_pb2.SparsifyDatasetRequest(
            dataset_id=source.id,
            target_dataset_id=member.dataset_id,
            target_name=label_set_name(source.name, settings),
            settings=settings,
        )

        def call(channel: grpc.Channel) -> Any:
            return sparsifier_pb2_grpc.SparsifierServiceStub(channel).SparsifyDataset(request, timeout=self._seconds)

        with self._stream(task, SPARSIFIER, call) as answers:
            done = any(answer.done for answer in answers)
        if not done:
            raise Internal("The sparsifier ended without the dataset.")
        manifest = read_manifest(self._store, member.dataset_id)
        self._datasets.add(manifest.dataset, size=own_bytes(self._store, manifest))

    def start(self, task: MemberTask) -> None:
        """Queue a member's run, unless it exists, and record that the member trains; nothing if a quota is used up.

        Raises:
            InvalidArgument: Its label set has no labelled cell to train on.
            CellsparseError: The store or the database failed.
        """
        member = task.member
        manifest = read_known_manifest(self._store, member.dataset_id)
        check_trainable(manifest)
        try:
            self._runs.get(member.run_id)
        except NotFound:
            name = f"{task.study.name[: _NAME_LENGTH - 8]} {member.number}"
            request = orchestrator_pb2.CreateRunRequest(
                dataset_id=member.dataset_id,
                settings=task.settings,
                max_attempts=task.study.max_attempts,
                priority=task.study.priority,
            )
            try:
                self._runs.add(member.run_id, name, request)
            except ResourceExhausted:
                return  # another study of the project was quicker: no member fails for a quota, it waits
        self._transitions.begin(task.study.id, member.number, _annotated_cells(manifest))

    def evaluate(self, task: MemberTask) -> None:
        """Score a member's model with the dense labels of the study's dataset.

        Raises:
            CellsparseError: The trainer is away or refuses, or the store or the database failed.
        """
        request = trainer_pb2.EvaluateRequest(
            model_id=task.member.run_id, dataset_id=task.study.dataset_id, split=task.study.split
        )

        def call(channel: grpc.Channel) -> Any:
            return trainer_pb2_grpc.TrainerServiceStub(channel).Evaluate(request, timeout=self._seconds)

        found: trainer_pb2.EvaluationReport | None = None
        with self._stream(task, task.member.backend, call) as answers:
            for answer in answers:
                found = answer.report if answer.HasField("report") else found
        if found is None:
            raise Internal(f"The {task.member.backend} trainer ended without scores.")
        self._transitions.score(task.study.id, task.member.number, found.scores)

    def cancel_run(self, run_id: str) -> None:
        """Request the cancellation of a member's run."""
        self._runs.cancel(run_id)

    def write_report(self, study: study_pb2.Study, members: Sequence[study_pb2.StudyMember]) -> None:
        """Store the report of a study whose members have all ended; raises StorageError."""
        built = report.build(study, members)
        self._store.put(keys.study_report_file(study.id, MEMBERS_CSV), report.to_csv(built))
        self._store.put(keys.study_report_file(study.id, REPORT_JSON), report.to_json(built))

    def end_calls(self, study_id: str = "") -> None:
        """Cancel one study's calls to other services; without a study, cancel all calls for good."""
        with self._lock:
            self._ending = self._ending or not study_id
            for (owner, _), call in self._calls.items():
                if study_id in ("", owner):
                    call.cancel()

    @contextmanager
    def _stream(self, task: MemberTask, service: str, begin: Callable[[grpc.Channel], Any]) -> Iterator[Any]:
        """Give the answers of a call to a service, which `end_calls` can cancel; raises its CellsparseError."""
        key = (task.study.id, task.member.number)
        waiter = Waiter(self._seconds)
        with self._lock:
            self._calls[key] = waiter
            if self._ending:
                waiter.cancel()

        def begin_and_register(channel: grpc.Channel) -> Any:
            stream = begin(channel)
            with self._lock:
                self._calls[key] = stream
                if self._ending:
                    stream.cancel()
            return stream

        try:
            with open_stream(self._launcher, service, waiter, begin_and_register) as answers:
                yield answers
        finally:
            with self._lock:
                self._calls.pop(key, None)


def _annotated_cells(manifest: dataset_pb2.DatasetManifest) -> int:
    return sum(item.cells for item in manifest.items if item.split != common_pb2.SPLIT_TEST)
