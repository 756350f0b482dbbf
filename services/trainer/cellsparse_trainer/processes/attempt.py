"""One attempt: a training process under supervision, with an event log."""

import contextlib
import logging
import os
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import psutil
from google.protobuf import json_format

from cellsparse_common import tracing
from cellsparse_common.files import replace_file
from cellsparse_common.logs import log_context, traceparent
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.processes.archive import EVENTS_FILE, LOG_FILE, archive
from cellsparse_trainer.processes.attempt_store import AttemptStores
from cellsparse_trainer.processes.events import EventLog
from cellsparse_trainer.processes.exit_reasons import Exit, explain_exit
from cellsparse_trainer.processes.failures import explain
from cellsparse_trainer.processes.fork_server import ForkServer
from cellsparse_trainer.processes.job import Job, without_secrets
from cellsparse_trainer.processes.launch import Launch
from cellsparse_trainer.processes.memory_kills import memory_kills
from cellsparse_trainer.processes.metrics import TrainingMetrics

_LOG = logging.getLogger(__name__)
_REQUEST = "request.json"
_TAIL_LINES = 30
_REAP_SECONDS = 5.0
"""Time that the other processes get to end by themselves after one of several failed."""


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What all attempts of a server share."""

    stores: AttemptStores
    """Opens the store, which keeps the logs of attempts that have ended."""
    stop_seconds: float
    """Time that a process gets to write a checkpoint and end."""
    metrics: TrainingMetrics
    """Counts what attempts report."""
    fork_server: ForkServer
    """Starts the processes."""


class Attempt:
    """One training process, or one command and the processes below it, from its start to its final event.

    Args:
        job: What the process does.
        launch: How it is started.
        plan: The run's plan; gives batch and crop where memory runs out.
        supervision: What all attempts share.
    """

    def __init__(self, job: Job, launch: Launch, plan: Plan | None, supervision: Supervision) -> None:
        self.job = job
        self._supervision = supervision
        self._metrics = supervision.metrics.follow(job.request.attempt)
        self._launch = launch
        self._plan = plan
        self._memory_kills = memory_kills()
        self.log = EventLog(job.folder / EVENTS_FILE)
        self._stop_event: trainer_pb2.TrainingEvent | None = None
        self._reaper: threading.Timer | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        write_request(job)
        self.log.append(trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_STARTING))
        environment = {
            **supervision.stores.environment(job.folder, os.environ),
            **launch.environment(),
            tracing.ENVIRONMENT: traceparent(),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = supervision.fork_server.start(launch.command(job.write()), environment)
        self._supervisor = threading.Thread(target=self._supervise, name=f"attempt-{job.request.run_id}")
        self._supervisor.start()

    @property
    def name(self) -> str:
        """The attempt as "run_id/attempt"."""
        return f"{self.job.request.run_id}/{self.job.request.attempt}"

    def stop(self, event: trainer_pb2.TrainingEvent) -> None:
        """End the process: it gets time to write a checkpoint, then it is killed. Idempotent; waits until it is gone.

        Args:
            event: The final event, unless the attempt has ended by itself.
        """
        if self._stop_event is None:
            self._stop_event = event
        self._process.terminate()
        try:
            self._process.wait(self._supervision.stop_seconds)
        except subprocess.TimeoutExpired:
            self._kill()
        self._supervisor.join(self._supervision.stop_seconds)

    def _kill(self) -> None:
        """End the process and all below it at once."""
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            first = psutil.Process(self._process.pid)
            for process in [*first.children(recursive=True), first]:
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _supervise(self) -> None:
        """Read the process' output, wait for its end, and make sure that the log gets a final event."""
        with log_context(run_id=self.job.request.run_id):
            reader = threading.Thread(target=self._read_stderr, name="attempt-stderr")
            reader.start()
            try:
                self._read_events()
            finally:
                code = self._process.wait()
                if self._reaper is not None:
                    self._reaper.cancel()
                reader.join(5)
                self.log.append(self._stop_event if self._stop_event is not None else self._explain_exit(code))
                archive(self._supervision.stores.open(self.job.folder), self.job)
                self._supervision.stores.forget(self.job.folder)
                if self._process.stdin:
                    self._process.stdin.close()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    event = json_format.Parse(line, trainer_pb2.TrainingEvent())
                except json_format.ParseError:
                    _LOG.warning("not an event: %s", line.rstrip())
                    continue
                self._take(event)

    def _take(self, event: trainer_pb2.TrainingEvent) -> None:
        several = self._launch.world > 1
        if several and event.reason == common_pb2.FAILURE_REASON_LOST and self._killed_for_memory():
            event.reason, event.message = explain(MemoryError(), self._plan)
        if self._stop_event is None or event.state == common_pb2.RUN_STATE_SUCCEEDED:
            self.log.append(event)
            self._metrics.take(event)
        if several and event.state == common_pb2.RUN_STATE_FAILED and self._reaper is None:
            # The other processes may wait for one that hangs.
            self._reaper = threading.Timer(_REAP_SECONDS, self._kill)
            self._reaper.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines, (self.job.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(line)
                file.flush()
                self._tail.append(line.rstrip())

    def _killed_for_memory(self) -> bool:
        return memory_kills() > self._memory_kills

    def _explain_exit(self, code: int) -> trainer_pb2.TrainingEvent:
        return explain_exit(
            Exit(
                code=code,
                tail=list(self._tail),
                plan=self._plan,
                placement=self._launch.placement,
                killed_for_memory=self._killed_for_memory(),
            )
        )


def write_request(job: Job) -> None:
    """Write an attempt's request into its folder, whole or not at all: a later server may find it there."""
    replace_file(job.folder / _REQUEST, json_format.MessageToJson(without_secrets(job.request)))


def read_request(folder: Path) -> trainer_pb2.StartTrainingRequest | None:
    """Return the request of the attempt in a folder; None if there is none."""
    try:
        text = (folder / _REQUEST).read_text()
    except FileNotFoundError:
        return None
    return json_format.Parse(text, trainer_pb2.StartTrainingRequest())
