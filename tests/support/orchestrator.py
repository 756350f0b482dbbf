"""A real orchestrator process with a home of its own, and what tests ask of it."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from support.limits import LONG_PATIENCE, PATIENCE, QUICK
from support.server_process import ServerProcess
from support.tiny_dataset import SPLITS, blobs

from cellsparse_common.config.tls import ClientTls
from cellsparse_common.errors import CellsparseError, from_rpc_error
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage.folder import UNFINISHED
from cellsparse_proto.v1 import (
    admin_pb2_grpc,
    common_pb2,
    dataset_pb2,
    dataset_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    project_pb2_grpc,
    prompter_pb2_grpc,
    study_pb2,
    study_pb2_grpc,
    trainer_pb2,
)

SETTLE_SECONDS = 10.0
FAKE_TRAINER = "unet=support.cellsparse_fake"


class Orchestrator(ServerProcess):
    """`with Orchestrator(home) as orchestrator:` gives one that answers; its children end with it, whatever happens.

    Attributes:
        home: Its home folder.
        store: Its object store's folder.
        runs: Stub of OrchestratorService.
        datasets: Stub of DatasetService.
        studies: Stub of StudyService.
        projects: Stub of ProjectService.
        prompters: Stub of PrompterService.
        admin: Stub of AdminService.
    """

    def __init__(self, home: Path, *, tls: ClientTls | None = None, **environment: str) -> None:
        self.home = home
        self._tls = tls
        self.store = home / "store"
        home.mkdir(parents=True, exist_ok=True)
        settings = {
            "CELLSPARSE_HOME": str(home),
            "CELLSPARSE_TRAINER_MODULES": FAKE_TRAINER,
            "CELLSPARSE_RETRY_SECONDS": "0.2",
            "CELLSPARSE_START_SECONDS": f"{LONG_PATIENCE:.0f}",
            **environment,
        }
        super().__init__(["-m", "cellsparse_orchestrator"], self.store, home, **settings)

    def __enter__(self) -> "Orchestrator":
        super().__enter__()
        self.channel = open_channel(self.address, tls=self._tls)
        self.runs = orchestrator_pb2_grpc.OrchestratorServiceStub(self.channel)
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(self.channel)
        self.studies = study_pb2_grpc.StudyServiceStub(self.channel)
        self.projects = project_pb2_grpc.ProjectServiceStub(self.channel)
        self.prompters = prompter_pb2_grpc.PrompterServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)
        return self

    def __exit__(self, *details) -> None:
        self.channel.close()
        super().__exit__(*details)

    def kill(self) -> None:
        """End the orchestrator alone, as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait(PATIENCE)

    def service(self, name: str) -> orchestrator_pb2.ServiceStatus:
        status = self.runs.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=PATIENCE, wait_for_ready=True)
        return next(service for service in status.services if service.name == name)

    def healthy(self, name: str, but_not: int = 0) -> orchestrator_pb2.ServiceStatus:
        """Wait until a service is healthy, in another process than `but_not`."""
        return until(lambda: (found := self.service(name)).healthy and (not but_not or found.pid != but_not) and found)

    def upload(self, items: Iterable | None = None, name: str = "tiny") -> dataset_pb2.Dataset:
        return self.datasets.CreateDataset(messages(items, name), timeout=PATIENCE).dataset

    def train(self, dataset_id: str, *, request_id: str = "", **settings) -> orchestrator_pb2.Run:
        request = orchestrator_pb2.CreateRunRequest(
            request_id=request_id,
            dataset_id=dataset_id,
            settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **settings),
        )
        return self.runs.CreateRun(request, timeout=PATIENCE).run

    def run(self, run_id: str) -> orchestrator_pb2.Run:
        return self.runs.GetRun(orchestrator_pb2.GetRunRequest(run_id=run_id), timeout=PATIENCE).run

    def watch(self, run_id: str, after: int = 0) -> Iterator[orchestrator_pb2.RunEvent]:
        request = orchestrator_pb2.WatchRunRequest(run_id=run_id, after_sequence=after)
        for answer in self.runs.WatchRun(request, timeout=PATIENCE):
            yield answer.event

    def begin_study(self, dataset_id: str, **fields) -> study_pb2.Study:
        request = study_pb2.CreateStudyRequest(dataset_id=dataset_id, **fields)
        return self.studies.CreateStudy(request, timeout=PATIENCE).study

    def study(self, study_id: str) -> study_pb2.Study:
        return self.studies.GetStudy(study_pb2.GetStudyRequest(study_id=study_id), timeout=PATIENCE).study

    def members(self, study_id: str) -> list[study_pb2.StudyMember]:
        request = study_pb2.ListStudyMembersRequest(study_id=study_id, page=common_pb2.PageRequest(page_size=1000))
        return list(self.studies.ListStudyMembers(request, timeout=PATIENCE).members)

    def watch_study(self, study_id: str, after: int = 0) -> Iterator[study_pb2.WatchStudyResponse]:
        request = study_pb2.WatchStudyRequest(study_id=study_id, after_sequence=after)
        yield from self.studies.WatchStudy(request, timeout=LONG_PATIENCE)


def until(found: Callable, seconds: float = PATIENCE):
    """Return the first true answer; fail when the time is over."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return answer


def messages(items: Iterable | None = None, name: str = "tiny") -> Iterator[dataset_pb2.CreateDatasetRequest]:
    """The stream of an upload; items are (name, split, image file, label file)."""
    yield dataset_pb2.CreateDatasetRequest(header=dataset_pb2.DatasetHeader(name=name))
    count = 0
    for item, split, image, label in tiny_items() if items is None else items:
        count += 1
        for role, data in ((dataset_pb2.FILE_ROLE_IMAGE, image), (dataset_pb2.FILE_ROLE_LABEL, label)):
            yield dataset_pb2.CreateDatasetRequest(file=dataset_pb2.FileHeader(item=item, split=split, role=role))
            for begin in range(0, len(data), 2**20):
                yield dataset_pb2.CreateDatasetRequest(chunk=data[begin : begin + 2**20])
    yield dataset_pb2.CreateDatasetRequest(end=dataset_pb2.UploadEnd(items=count))


def tiny_items(count: int = 3, size: int = 64) -> Iterator[tuple[str, int, bytes, bytes]]:
    for number in range(count):
        image, label = blobs(size, seed=number)
        yield f"item{number}", SPLITS[number % 3], encode_tiff(image), encode_labels(label)


def refused(call: Callable, *args, seconds: float = QUICK, **kwargs) -> CellsparseError:
    """Make a call, unary or streaming, that must fail in time, and return its error."""
    begin = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        _exhaust(call(*args, timeout=PATIENCE, **kwargs))
    assert time.monotonic() - begin < seconds
    return from_rpc_error(caught.value)


def _exhaust(answer: object) -> None:
    if isinstance(answer, Iterator):
        list(answer)


def snapshot(orchestrator: Orchestrator) -> tuple[dict[str, int], list[str]]:
    """All files of store and spool with their sizes, and all rows of the database but the lease, whose beat goes on.

    A trainer that still writes, such as the log of an attempt that has ended, gets time to finish.
    """
    end = time.monotonic() + SETTLE_SECONDS
    while any((orchestrator.store / UNFINISHED).rglob("*")) and time.monotonic() < end:
        time.sleep(0.05)
    folders = (orchestrator.store, orchestrator.home / "uploads")
    files = {str(path): path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()}
    with sqlite3.connect(orchestrator.home / "cellsparse.db") as connection:
        rows = [line for line in connection.iterdump() if not line.startswith('INSERT INTO "leases"')]
    return files, rows


def state_names(events: Iterable[orchestrator_pb2.RunEvent]) -> list[str]:
    """States of events without repetitions."""
    names: list[str] = []
    for event in events:
        name = common_pb2.RunState.Name(event.state).removeprefix("RUN_STATE_")
        if names[-1:] != [name]:
            names.append(name)
    return names


def rss_mib(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20
