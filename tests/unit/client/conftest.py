"""A fake orchestrator in this process: a real gRPC server with our interceptor, and canned answers."""

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import InvalidArgument, NotFound, Unavailable
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.rpc.interceptor import CallGuard
from cellsparse_proto.v1 import (
    common_pb2,
    dataset_pb2,
    dataset_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    project_pb2,
    project_pb2_grpc,
    study_pb2,
    study_pb2_grpc,
    trainer_pb2,
)


def make_run(run_id, name="run", state=common_pb2.RUN_STATE_RUNNING, message=""):
    run = orchestrator_pb2.Run(id=run_id, name=name, backend="unet", dataset_id="ds-1", state=state, message=message)
    run.settings.unet.base_channels = 8
    return run


def make_event(sequence, state=common_pb2.RUN_STATE_RUNNING, step=0, log=()):
    event = orchestrator_pb2.RunEvent(sequence=sequence, state=state, attempt=1)
    event.time.FromSeconds(1_700_000_000 + sequence)
    event.training.step, event.training.total_steps = step, 10
    event.training.losses["loss"] = 1.0 / sequence
    event.training.log_lines.extend(log)
    return event


@dataclass
class State:
    """What the fake knows, and what it was asked."""

    datasets: list = field(default_factory=list)
    runs: list = field(default_factory=list)
    models: list = field(default_factory=list)
    events: list = field(default_factory=list)
    uploads: list = field(default_factory=list)
    """Messages of each upload, and whether it came to its end."""
    cancelled: list = field(default_factory=list)
    watches: list = field(default_factory=list)
    break_after: int | None = None
    """Sequence after which a watch breaks once with UNAVAILABLE."""
    endless: bool = False
    """Watches go on after the last event."""
    created: list = field(default_factory=list)
    predicted: list = field(default_factory=list)
    added: list = field(default_factory=list)
    """Header and file of each image that was added to a project."""
    studies: list = field(default_factory=list)
    members: list = field(default_factory=list)
    changes: list = field(default_factory=list)
    """Answers of a study's watch."""
    report: dict = field(default_factory=dict)
    moved: list = field(default_factory=list)
    """What was asked of studies: (call, id)."""
    healthy: bool = True
    max_pixels: int = 2**26
    predicted_shape: tuple[int, int] | None = None
    """Shape of predicted labels; None: that of the image."""
    damaged: bool = False
    """Exports lack their last bytes."""


class Datasets(dataset_pb2_grpc.DatasetServiceServicer):
    def __init__(self, state):
        self.state = state

    def CreateDataset(self, requests, context):
        messages: list = []
        self.state.uploads.append((messages, ended := []))
        messages.extend(requests)
        if not messages:
            raise InvalidArgument("the stream is empty.")
        ended.append(True)
        dataset = dataset_pb2.Dataset(id="ds-new", name=messages[0].header.name)
        dataset.items = sum(m.HasField("file") for m in messages) // 2
        return dataset_pb2.CreateDatasetResponse(dataset=dataset)

    def ListDatasets(self, request, context):
        start = int(request.page.page_token or 0)
        more = start + 2 < len(self.state.datasets)  # pages of two, whatever was asked
        return dataset_pb2.ListDatasetsResponse(
            datasets=self.state.datasets[start : start + 2], next_page_token=str(start + 2) if more else ""
        )

    def GetDataset(self, request, context):
        for dataset in self.state.datasets:
            if dataset.id == request.dataset_id:
                return dataset_pb2.GetDatasetResponse(dataset=dataset)
        raise NotFound(f"dataset {request.dataset_id!r} does not exist.")

    def ListDatasetItems(self, request, context):
        item = dataset_pb2.DatasetItem(name="a", split=common_pb2.SPLIT_TRAIN, shape=[4, 5], axes="YX", dtype="uint8")
        return dataset_pb2.ListDatasetItemsResponse(items=[item])

    def GetDatasetItem(self, request, context):
        label = np.full((4, 5), -1, np.int32)
        label[1, 1] = 7
        item = dataset_pb2.DatasetItem(name=request.item, split=common_pb2.SPLIT_VAL)
        return dataset_pb2.GetDatasetItemResponse(
            item=item, image=encode_tiff(np.ones((4, 5), np.uint16)), label=encode_tiff(label)
        )

    def DeleteDataset(self, request, context):
        self.GetDataset(request, context)
        self.state.datasets[:] = [d for d in self.state.datasets if d.id != request.dataset_id]
        return dataset_pb2.DeleteDatasetResponse()

    def CreateSparseDataset(self, request, context):
        self.GetDataset(request, context)
        for done in (1, 2):
            yield dataset_pb2.CreateSparseDatasetResponse(items_done=done, items_total=2)
        made = dataset_pb2.Dataset(id="ds-sparse", name=request.name or "sparse", sparsify=request.settings)
        yield dataset_pb2.CreateSparseDatasetResponse(
            items_done=2, items_total=2, dataset=made, warnings=["no cell in b"]
        )


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    def __init__(self, state):
        self.state = state

    def CreateRun(self, request, context):
        self.state.created.append(request)
        return orchestrator_pb2.CreateRunResponse(run=self.state.runs[0])

    def CreateRuns(self, request, context):
        self.state.created.append(request)
        return orchestrator_pb2.CreateRunsResponse(runs=self.state.runs)

    def GetRun(self, request, context):
        for run in self.state.runs:
            if run.id == request.run_id:
                return orchestrator_pb2.GetRunResponse(run=run)
        raise NotFound(f"run {request.run_id!r} does not exist.")

    def ListRuns(self, request, context):
        runs = [run for run in self.state.runs if not request.states or run.state in request.states]
        return orchestrator_pb2.ListRunsResponse(runs=runs)

    def WatchRun(self, request, context):
        self.GetRun(request, context)
        self.state.watches.append(request.after_sequence)
        for event in self.state.events:
            if event.sequence > request.after_sequence:
                yield orchestrator_pb2.WatchRunResponse(event=event)
            if self.state.break_after == event.sequence:
                self.state.break_after = None
                raise Unavailable("going down.")
        end = time.monotonic() + PATIENCE
        while self.state.endless and context.is_active() and time.monotonic() < end:
            time.sleep(0.02)

    def CancelRun(self, request, context):
        self.state.cancelled.append(request.run_id)
        return orchestrator_pb2.CancelRunResponse(run=self.GetRun(request, context).run)

    def ListModels(self, request, context):
        return orchestrator_pb2.ListModelsResponse(models=self.state.models)

    def GetModel(self, request, context):
        for model in self.state.models:
            if model.id == request.model_id:
                return orchestrator_pb2.GetModelResponse(model=model)
        raise NotFound(f"model {request.model_id!r} does not exist.")

    def Predict(self, request, context):
        if not request.image.startswith((b"II", b"MM")):
            raise InvalidArgument("image is neither TIFF nor PNG.", "image")
        shape = decode_image(request.image, max_pixels=2**20).array.shape
        self.state.predicted.append(request)
        if request.format == trainer_pb2.OUTPUT_FORMAT_GEOJSON:
            return trainer_pb2.PredictResponse(output=b"{}", cells=1)
        if request.format == trainer_pb2.OUTPUT_FORMAT_IMAGEJ_ROI:
            return trainer_pb2.PredictResponse(output=b"PK", cells=1)
        label = np.zeros(self.state.predicted_shape or shape[:2], np.int32)
        label[0, 0] = 3
        return trainer_pb2.PredictResponse(label=encode_tiff(label), cells=1)

    def Evaluate(self, request, context):
        self.state.evaluated = request
        yield trainer_pb2.EvaluateResponse(items_done=1, items_total=1)
        report = trainer_pb2.EvaluationReport(scores=[common_pb2.MatchingScore(iou=0.5, tp=3, f1=float("nan"))])
        yield trainer_pb2.EvaluateResponse(items_done=1, items_total=1, report=report)

    def Export(self, request, context):
        digest = hashlib.sha256(b"whole file").hexdigest()
        yield trainer_pb2.ExportResponse(header=trainer_pb2.ExportHeader(file_name="m.zip", size=10, sha256=digest))
        yield trainer_pb2.ExportResponse(chunk=b"whole")
        yield trainer_pb2.ExportResponse(chunk=b" file" if not self.state.damaged else b" fi")

    def GetStatus(self, request, context):
        services = [orchestrator_pb2.ServiceStatus(name="orchestrator", healthy=self.state.healthy)]
        return orchestrator_pb2.GetStatusResponse(
            services=services, store_url="file:///store", max_pixels=self.state.max_pixels
        )


class Projects(project_pb2_grpc.ProjectServiceServicer):
    def __init__(self, state):
        self.state = state

    def AddImage(self, requests, context):
        first, *rest = requests
        data = b"".join(message.chunk for message in rest)
        if not first.header.stored and rest[-1].end.size != len(data):
            raise InvalidArgument("the upload broke off.")
        self.state.added.append((first.header, data))
        return project_pb2.AddImageResponse(image=project_pb2.ProjectImage(id="im-1", name=first.header.name))


class Studies(study_pb2_grpc.StudyServiceServicer):
    def __init__(self, state):
        self.state = state

    def CreateStudy(self, request, context):
        self.state.created.append(request)
        return study_pb2.CreateStudyResponse(study=self.state.studies[0])

    def GetStudy(self, request, context):
        for study in self.state.studies:
            if study.id == request.study_id:
                return study_pb2.GetStudyResponse(study=study)
        raise NotFound(f"study {request.study_id!r} does not exist.")

    def ListStudies(self, request, context):
        return study_pb2.ListStudiesResponse(studies=self.state.studies)

    def ListStudyMembers(self, request, context):
        start = int(request.page.page_token or 0)
        more = start + 2 < len(self.state.members)  # pages of two, whatever was asked
        return study_pb2.ListStudyMembersResponse(
            members=self.state.members[start : start + 2], next_page_token=str(start + 2) if more else ""
        )

    def WatchStudy(self, request, context):
        self.GetStudy(request, context)
        self.state.watches.append(request.after_sequence)
        for change in self.state.changes:
            if change.sequence > request.after_sequence:
                yield change
            if self.state.break_after == change.sequence:
                self.state.break_after = None
                raise Unavailable("going down.")

    def PauseStudy(self, request, context):
        self.state.moved.append(("pause", request.study_id))
        return study_pb2.PauseStudyResponse(study=self.GetStudy(request, context).study)

    def ResumeStudy(self, request, context):
        self.state.moved.append(("resume", request.study_id))
        return study_pb2.ResumeStudyResponse(study=self.GetStudy(request, context).study)

    def CancelStudy(self, request, context):
        self.state.moved.append(("cancel", request.study_id))
        return study_pb2.CancelStudyResponse(study=self.GetStudy(request, context).study)

    def DeleteStudy(self, request, context):
        self.state.moved.append(("delete", request.study_id))
        return study_pb2.DeleteStudyResponse()

    def GetStudyReport(self, request, context):
        study = self.GetStudy(request, context).study
        return study_pb2.GetStudyReportResponse(
            complete=study.state == study_pb2.STUDY_STATE_SUCCEEDED,
            report_json=json.dumps(self.state.report).encode(),
            members_csv=b"number\n1\n",
        )


@dataclass
class Fake:
    """The running fake."""

    state: State
    address: str = ""
    server: object = None

    def start(self, port: int = 0) -> None:
        self.server = grpc.server(
            ThreadPoolExecutor(16), interceptors=[CallGuard()], options=[("grpc.so_reuseport", 0)]
        )
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(self.state), self.server)
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Orchestrator(self.state), self.server)
        project_pb2_grpc.add_ProjectServiceServicer_to_server(Projects(self.state), self.server)
        study_pb2_grpc.add_StudyServiceServicer_to_server(Studies(self.state), self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port(f'127.0.0.1:{port}')}"
        self.server.start()

    def stop(self) -> None:
        self.server.stop(0).wait(PATIENCE)


@pytest.fixture
def fake(monkeypatch, tmp_path) -> Iterator[Fake]:
    """A fake orchestrator that CELLSPARSE_ADDRESS points to."""
    running = Fake(State())
    running.start()
    monkeypatch.setenv("CELLSPARSE_ADDRESS", running.address)
    monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path / "home"))
    yield running
    running.stop()


@pytest.fixture
def make():
    """Builders of messages: `make.run(...)`, `make.event(...)`."""

    class Make:
        run = staticmethod(make_run)
        event = staticmethod(make_event)

    return Make
