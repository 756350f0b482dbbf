"""The trainer's attempts: each a training process with an event log."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from cellsparse_common.errors import AlreadyExists, CellsparseError, InvalidArgument, NotFound
from cellsparse_common.files import replace_file
from cellsparse_common.logs import log_context
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.processes import launch
from cellsparse_trainer.processes.events import EventLog
from cellsparse_trainer.processes.failures import explain
from cellsparse_trainer.processes.fork_server import ForkServer
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.processes.launch import Placement
from cellsparse_trainer.processes.memory_kills import memory_kills
from cellsparse_trainer.processes.metrics import TrainingMetrics

_LOG = logging.getLogger(__name__)
Launcher = Callable[[Path, Placement], list[str]]
"""Makes the command that starts a node's processes, from the job's file and where all are."""
_REQUEST = "request.json"
_TAIL_LINES = 30
_REAP_SECONDS = 5.0
"""After one of several processes failed, how long the others have to end by themselves."""
_NOT_ALL_THERE = ("waiting for clients", "The client socket has timed out")
"""What torchrun prints where another node's did not come in time."""
_NO_MEMORY = "std::bad_alloc"
"""What C++ prints before it aborts a process where an allocation fails outside of Python's reach."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """How an attempt is started."""

    plan: Plan | None = None
    """What its settings resolve to; names batch and crop where the kernel ends it for its memory."""
    placement: Placement | None = None
    """Where its processes are; None: one process trains alone."""
    launcher: Launcher = launch.one_per_rank
    """Makes the command for more than one process."""

    def command(self, job: Path) -> list[str]:
        """Return the command to run."""
        return launch.alone(job) if self.placement is None else self.launcher(job, self.placement)

    def environment(self) -> dict[str, str]:
        """Return what it needs besides this process' environment."""
        return {} if self.placement is None else launch.threads(self.placement.processes)


class Attempt:
    """One training process, or a launcher and the processes below it, from its start to its final event."""

    def __init__(
        self,
        job: Job,
        start: Start,
        store: ObjectStore,
        stop_seconds: float,
        metrics: TrainingMetrics,
        fork_server: ForkServer,
    ) -> None:
        self.job = job
        self._metrics = metrics.follow(job.request.attempt)
        self._placement = start.placement
        self._world = start.placement.world if start.placement else 1
        self._plan = start.plan
        self._memory_kills = memory_kills()
        self.log = EventLog(job.folder / "events.jsonl")
        self._store = store
        self._stop_seconds = stop_seconds
        self._stop_state: trainer_pb2.TrainingEvent | None = None
        self._reaper: threading.Timer | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        # A server that is killed meanwhile must not leave half of the file.
        replace_file(job.folder / _REQUEST, json_format.MessageToJson(job.request))
        self.log.append(trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_STARTING))
        environment = {**os.environ, **start.environment(), "PYTHONUNBUFFERED": "1"}
        self._process = fork_server.start(start.command(job.write()), environment)
        self._owner = threading.Thread(target=self._attend, name=f"attempt-{job.request.run_id}")
        self._owner.start()

    @property
    def name(self) -> str:
        """The attempt as "run_id/attempt"."""
        return f"{self.job.request.run_id}/{self.job.request.attempt}"

    def stop(self, event: trainer_pb2.TrainingEvent) -> None:
        """End the process: it gets time to write a checkpoint, then it is killed. Idempotent; waits until it is gone.

        Args:
            event: The final event, if the attempt has not ended by itself.
        """
        if self._stop_state is None:
            self._stop_state = event
        self._process.terminate()
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            self._kill()
        self._owner.join(self._stop_seconds)

    def _kill(self) -> None:
        """End the process and all below it at once."""
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self._process.pid)
            for process in [*first.children(recursive=True), first]:
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _attend(self) -> None:
        """Own the process: feed it, read it, wait for it, and see that the log gets a final event."""
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
                final = self._stop_state if self._stop_state is not None else self._explain_exit(code)
                self.log.append(final)
                self._archive()
                if self._process.stdin:
                    self._process.stdin.close()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json_format.Parse(line, trainer_pb2.TrainingEvent())
            except json_format.ParseError:
                _LOG.warning("not an event: %s", line.rstrip())
                continue
            if self._world > 1 and event.reason == common_pb2.FAILURE_REASON_LOST and self._killed_for_memory():
                event.reason, event.message = explain(MemoryError(), self._plan)
            if self._stop_state is None or event.state == common_pb2.RUN_STATE_SUCCEEDED:
                self.log.append(event)
                self._metrics.take(event)
            if self._world > 1 and event.state == common_pb2.RUN_STATE_FAILED and self._reaper is None:
                # The processes that are left may wait for one that hangs.
                self._reaper = threading.Timer(_REAP_SECONDS, self._kill)
                self._reaper.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with (self.job.folder / "log.txt").open("a", encoding="utf-8") as file:
            for line in self._process.stderr:
                file.write(line)
                file.flush()
                self._tail.append(line.rstrip())

    def _killed_for_memory(self) -> bool:
        return memory_kills() > self._memory_kills

    def _explain_exit(self, code: int) -> trainer_pb2.TrainingEvent:
        event = trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_FAILED)
        # Of several processes the one that was killed is below the launcher, which ends with a code of its own.
        by_kernel = (code == -signal.SIGKILL or self._world > 1) and self._killed_for_memory()
        if by_kernel or (code == -signal.SIGABRT and any(_NO_MEMORY in line for line in self._tail)):
            event.reason, event.message = explain(MemoryError(), self._plan)
        elif code == -signal.SIGKILL:
            event.reason = common_pb2.FAILURE_REASON_LOST
            event.message = "The training process was killed (signal 9)."
        elif code < 0:
            event.reason = common_pb2.FAILURE_REASON_LOST
            event.message = f"The training process was ended by signal {-code}."
        elif self._placement is not None:
            event.reason = common_pb2.FAILURE_REASON_LOST
            if any(word in line for line in self._tail for word in _NOT_ALL_THERE):
                seconds, nodes = self._placement.start_seconds, len(self._placement.hosts)
                event.message = f"Not all of the {nodes} nodes were there within {seconds:.0f} s."
            else:
                event.message = f"One of the {self._world} training processes ended without a result; the log has more."
            event.log_lines.extend(self._tail)
        else:
            event.reason = common_pb2.FAILURE_REASON_INTERNAL
            event.message = f"The training process ended with code {code} and no result; its log has more."
            event.log_lines.extend(self._tail)
        return event

    def _archive(self) -> None:
        """Store the event log and the log text; without them the run is still whole."""
        request = self.job.request
        try:
            self._store.put(keys.attempt_events(request.run_id, request.attempt), self.log.path)
            self._store.put(keys.attempt_log(request.run_id, request.attempt), self.job.folder / "log.txt")
        except CellsparseError as error:
            _LOG.warning("the attempt's logs could not be stored: %s", error.message)
        for name in ("checkpoints", "model"):
            shutil.rmtree(self.job.folder / name, ignore_errors=True)


class Attempts:
    """All attempts of this server, and those a server before it left on disk."""

    def __init__(
        self,
        module: str,
        folder: Path,
        store: ObjectStore,
        stop_seconds: float,
        metrics: TrainingMetrics | None = None,
        warm_seconds: float = 0.0,
        *,
        launcher: Launcher = launch.one_per_rank,
        start_seconds: float = 120.0,
    ) -> None:
        self._metrics = metrics or TrainingMetrics(CollectorRegistry())
        self._module = module
        self._fork_server = ForkServer(module, warm_seconds)
        self._launcher = launcher
        self._start_seconds = start_seconds
        self._folder = folder
        self._store = store
        self._stop_seconds = stop_seconds
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, int], Attempt] = {}

    def start(self, request: trainer_pb2.StartTrainingRequest, plan: Plan | None = None) -> bool:
        """Start an attempt unless it is known; end earlier attempts of the same run.

        Args:
            request: What to train, and as which attempt of which run.
            plan: The plan that its settings resolve to; names batch and crop where the kernel ends it for its memory.

        Returns:
            True if this call started it.

        Raises:
            AlreadyExists: The attempt is known with another dataset or other settings.
            InvalidArgument: Its placement is not one for its settings.
        """
        key = (request.run_id, request.attempt)
        with self._lock:
            known = self._attempts.get(key)
            asked = known.job.request if known else self._left_behind(request.run_id, request.attempt)
            if asked is not None:
                if asked != request:
                    raise AlreadyExists(
                        f"Attempt {request.attempt} of run {request.run_id} exists with another dataset or settings."
                    )
                return False
            for attempt in self._attempts.values():
                if attempt.job.request.run_id == request.run_id and not attempt.log.ended:
                    attempt.stop(_lost("A later attempt of this run was started."))
            folder = self._attempt_folder(*key)
            folder.mkdir(parents=True, exist_ok=True)
            placement = find_placement(request)
            if placement is not None:
                placement = replace(placement, start_seconds=self._start_seconds)
            job = Job(
                module=self._module,
                request=request,
                folder=folder,
                crew=placement.crew if placement else "",
                start_seconds=self._start_seconds,
            )
            start = Start(plan=plan, placement=placement, launcher=self._launcher)
            self._attempts[key] = Attempt(job, start, self._store, self._stop_seconds, self._metrics, self._fork_server)
            return True

    def log(self, run_id: str, attempt: int) -> EventLog:
        """Return an attempt's event log; one that a dead server left behind gets its final event now.

        Raises:
            NotFound: The attempt was never started here.
        """
        with self._lock:
            known = self._attempts.get((run_id, attempt))
            if known is not None:
                return known.log
            if self._left_behind(run_id, attempt) is None:
                raise NotFound(f"Attempt {attempt} of run {run_id} was not started by this trainer.")
            log = EventLog(self._attempt_folder(run_id, attempt) / "events.jsonl")
            log.append(_lost("The trainer was restarted while the attempt was training."))
            return log

    def stop(self, run_id: str, attempt: int) -> EventLog:
        """End an attempt as cancelled, wait until its process is gone, and return its log.

        Raises:
            NotFound: The attempt was never started here.
        """
        with self._lock:
            known = self._attempts.get((run_id, attempt))
        if known is None:
            return self.log(run_id, attempt)
        known.stop(trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_CANCELLED, message="Stopped on request."))
        return known.log

    def stop_all(self) -> None:
        """End all attempts because this server ends; a later attempt elsewhere resumes from their checkpoints."""
        with self._lock:
            running = [attempt for attempt in self._attempts.values() if not attempt.log.ended]
        threads = [threading.Thread(target=attempt.stop, args=(_evicted(),)) for attempt in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """End what was kept ready for later attempts."""
        self._fork_server.close()

    def active(self) -> Iterator[str]:
        """Yield the attempts that have not ended, as "run_id/attempt"."""
        with self._lock:
            return iter([attempt.name for attempt in self._attempts.values() if not attempt.log.ended])

    def _attempt_folder(self, run_id: str, attempt: int) -> Path:
        return self._folder / keys.check_id(run_id, "run_id") / str(attempt)

    def _left_behind(self, run_id: str, attempt: int) -> trainer_pb2.StartTrainingRequest | None:
        try:
            text = (self._attempt_folder(run_id, attempt) / _REQUEST).read_text()
        except FileNotFoundError:
            return None
        return json_format.Parse(text, trainer_pb2.StartTrainingRequest())


def find_placement(request: trainer_pb2.StartTrainingRequest) -> Placement | None:
    """Return where an attempt's processes are; None if there is one only.

    Raises:
        InvalidArgument: The given placement has another number of nodes than the settings, or not that node.
    """
    nodes, each = (max(1, n) for n in (request.settings.nodes, request.settings.processes_per_node))
    given = request.placement
    if request.HasField("placement"):
        if len(given.hosts) != nodes:
            raise InvalidArgument(
                f"placement names {len(given.hosts)} hosts, but settings.nodes is {nodes}; allowed: as many.",
                "placement.hosts",
            )
        if given.node >= nodes:
            raise InvalidArgument(f"placement.node is {given.node}; allowed: 0 to {nodes - 1}.", "placement.node")
    if nodes * each == 1:
        return None
    if not request.HasField("placement"):
        return launch.here(nodes * each)
    return Placement(hosts=tuple(given.hosts), node=given.node, processes=each, port=given.port)


def _lost(sentence: str) -> trainer_pb2.TrainingEvent:
    return trainer_pb2.TrainingEvent(
        state=common_pb2.RUN_STATE_FAILED, reason=common_pb2.FAILURE_REASON_LOST, message=sentence
    )


def _evicted() -> trainer_pb2.TrainingEvent:
    return trainer_pb2.TrainingEvent(
        state=common_pb2.RUN_STATE_FAILED,
        reason=common_pb2.FAILURE_REASON_EVICTED,
        message="The trainer was shut down; a checkpoint was written.",
    )
