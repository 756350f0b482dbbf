"""All attempts of a trainer: each is a training process with an event log."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import AlreadyExists, FailedPrecondition, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.processes.archive import EVENTS_FILE
from cellsparse_trainer.processes.attempt import Attempt, Supervision, read_request
from cellsparse_trainer.processes.attempt_store import AttemptStores
from cellsparse_trainer.processes.events import EventLog
from cellsparse_trainer.processes.exit_reasons import evicted, lost
from cellsparse_trainer.processes.fork_server import ForkServer
from cellsparse_trainer.processes.job import Inputs, Job, without_secrets
from cellsparse_trainer.processes.launch import Launch, NodeCommand, find_placement, one_per_rank
from cellsparse_trainer.processes.metrics import TrainingMetrics


@dataclass(frozen=True, kw_only=True)
class AttemptSettings:
    """How attempts are run."""

    package: str
    """Import name of the backend's package."""
    preload: str
    """Import names of the modules that a fork server loads (see `BackendSpec`)."""
    stop_seconds: float
    """Time that a process gets to write a checkpoint and end."""
    warm_seconds: float = 0.0
    """How long a fork server is kept without an attempt; 0: there is none."""
    warm_start: bool = False
    """Whether it loads the backend now, and not with the first attempt."""
    node_command: NodeCommand = one_per_rank
    """Makes the command for an attempt of more than one process."""
    rendezvous_seconds: float = 120.0
    """Seconds within which all processes of an attempt must connect."""


class Attempts:
    """All attempts of this server, and those that an earlier server left on disk.

    Args:
        how: How attempts are run.
        folder: Where each attempt gets a folder.
        store: Keeps the logs of attempts that have ended.
        metrics: Counts what attempts report.
        settings: How attempts with credentials of their own reach the store; None: all use `store`.
    """

    def __init__(
        self,
        how: AttemptSettings,
        folder: Path,
        store: ObjectStore,
        metrics: TrainingMetrics | None = None,
        settings: StoreSettings | None = None,
    ) -> None:
        self._how = how
        self._fork_server = ForkServer(how.preload, how.warm_seconds, at_once=how.warm_start)
        self._folder = folder
        self._supervision = Supervision(
            stores=AttemptStores(store, settings),
            stop_seconds=how.stop_seconds,
            metrics=metrics or TrainingMetrics(CollectorRegistry()),
            fork_server=self._fork_server,
        )
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, int], Attempt] = {}

    def knows(self, request: trainer_pb2.StartTrainingRequest) -> bool:
        """Whether an attempt was started before, by this server or by one before it.

        Raises:
            AlreadyExists: It was started with another dataset or other settings.
        """
        with self._lock:
            return self._knows(request)

    def open_store(self, request: trainer_pb2.StartTrainingRequest) -> ObjectStore:
        """Return the store as an attempt reaches it, whose credentials are kept from now on.

        Raises:
            StorageError: They cannot be kept.
        """
        folder = self._attempt_folder(request.run_id, request.attempt)
        if request.HasField("credentials"):
            self._supervision.stores.keep(folder, request.credentials)
        return self._supervision.stores.open(folder)

    def renew(self, request: trainer_pb2.RenewCredentialsRequest) -> None:
        """Replace the credentials of an attempt.

        Raises:
            NotFound: It is not under way here.
            FailedPrecondition: It began without.
            StorageError: They cannot be kept.
        """
        with self._lock:
            known = self._attempts.get((request.run_id, request.attempt))
        if known is None or known.log.ended:
            raise NotFound(f"Attempt {request.attempt} of run {request.run_id} is not under way at this trainer.")
        if not known.job.request.HasField("credentials"):
            raise FailedPrecondition(
                f"Attempt {request.attempt} of run {request.run_id} began with the trainer's own credentials."
            )
        self._supervision.stores.keep(known.job.folder, request.credentials)

    def start(self, request: trainer_pb2.StartTrainingRequest, inputs: Inputs, plan: Plan | None = None) -> bool:
        """Start an attempt unless it is known; end earlier attempts of the same run.

        Args:
            request: Which attempt of which run.
            inputs: What to train with and on.
            plan: The run's plan; gives batch and crop where the kernel ends the process for its memory.

        Returns:
            True if this call started it.

        Raises:
            AlreadyExists: The attempt is known with another dataset or other settings.
            InvalidArgument: Its placement does not fit its settings.
            FailedPrecondition: An orchestrator that has taken over has started an attempt of this run.
        """
        with self._lock:
            if self._knows(request):
                return False
            self._refuse_earlier_lease(request)
            for attempt in self._attempts.values():
                if attempt.job.request.run_id == request.run_id and not attempt.log.ended:
                    attempt.stop(lost("A later attempt of this run was started."))
            folder = self._attempt_folder(request.run_id, request.attempt)
            folder.mkdir(parents=True, exist_ok=True)
            placement = find_placement(request, self._how.rendezvous_seconds)
            job = Job(
                package=self._how.package,
                request=request,
                inputs=inputs,
                folder=folder,
                coordinator=placement.coordinator if placement else "",
                rendezvous_seconds=self._how.rendezvous_seconds,
            )
            launch = Launch(placement=placement, node_command=self._how.node_command)
            self._attempts[request.run_id, request.attempt] = Attempt(job, launch, plan, self._supervision)
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
            if read_request(self._attempt_folder(run_id, attempt)) is None:
                raise NotFound(f"Attempt {attempt} of run {run_id} was not started by this trainer.")
            log = EventLog(self._attempt_folder(run_id, attempt) / EVENTS_FILE)
            log.append(lost("The trainer was restarted while the attempt was training."))
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
        threads = [threading.Thread(target=attempt.stop, args=(evicted(),)) for attempt in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """End the process that is kept ready for later attempts."""
        self._fork_server.close()

    def active(self) -> Iterator[str]:
        """Yield the attempts that have not ended, as "run_id/attempt"."""
        with self._lock:
            return iter([attempt.name for attempt in self._attempts.values() if not attempt.log.ended])

    def _attempt_folder(self, run_id: str, attempt: int) -> Path:
        return self._folder / keys.check_id(run_id, "run_id") / str(attempt)

    def _refuse_earlier_lease(self, request: trainer_pb2.StartTrainingRequest) -> None:
        for attempt in self._attempts.values():
            known = attempt.job.request
            if known.run_id == request.run_id and known.fence > request.fence:
                raise FailedPrecondition(
                    f"Another orchestrator has taken over run {request.run_id}: lease {request.fence} of this request "
                    f"is older than lease {known.fence} of attempt {known.attempt}."
                )

    def _knows(self, request: trainer_pb2.StartTrainingRequest) -> bool:
        known = self._attempts.get((request.run_id, request.attempt))
        before = known.job.request if known else read_request(self._attempt_folder(request.run_id, request.attempt))
        if before is not None and _asked(before) != _asked(request):
            raise AlreadyExists(
                f"Attempt {request.attempt} of run {request.run_id} exists with another dataset or settings."
            )
        return before is not None


def _asked(request: trainer_pb2.StartTrainingRequest) -> trainer_pb2.StartTrainingRequest:
    """Return what a request asks for: an orchestrator that has taken over asks for the same with another lease."""
    asked = without_secrets(request)
    asked.ClearField("fence")
    return asked
