"""The trainer's attempts: each a training process with an event log."""

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import json_format

from cellsparse_common import keys
from cellsparse_common.errors import AlreadyExists, CellsparseError, NotFound
from cellsparse_common.logs import log_context
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.events import EventLog
from cellsparse_trainer.job import Job

_LOG = logging.getLogger(__name__)
_REQUEST = "request.json"
_TAIL_LINES = 30


class Attempt:
    """One training process, from its start to its final event."""

    def __init__(self, job: Job, store: ObjectStore, stop_seconds: float) -> None:
        self.job = job
        self.log = EventLog(job.folder / "events.jsonl")
        self._store = store
        self._stop_seconds = stop_seconds
        self._stop_state: trainer_pb2.TrainingEvent | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        (job.folder / _REQUEST).write_text(json_format.MessageToJson(job.request))
        self.log.append(trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_STARTING))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cellsparse_trainer.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
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
            self._process.kill()
        self._owner.join(self._stop_seconds)

    def _attend(self) -> None:
        """Own the process: feed it, read it, wait for it, and see that the log gets a final event."""
        with log_context(run_id=self.job.request.run_id):
            reader = threading.Thread(target=self._read_stderr, name="attempt-stderr")
            reader.start()
            try:
                self._send_job()
                self._read_events()
            finally:
                code = self._process.wait()
                reader.join(5)
                final = self._stop_state if self._stop_state is not None else self._explain_exit(code)
                self.log.append(final)
                self._archive()
                if self._process.stdin:
                    self._process.stdin.close()

    def _send_job(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(self.job.to_line())
            self._process.stdin.flush()
        except BrokenPipeError:
            _LOG.warning("the training process ended before it took its job")

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json_format.Parse(line, trainer_pb2.TrainingEvent())
            except json_format.ParseError:
                _LOG.warning("not an event: %s", line.rstrip())
                continue
            if self._stop_state is None or event.state == common_pb2.RUN_STATE_SUCCEEDED:
                self.log.append(event)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with (self.job.folder / "log.txt").open("a", encoding="utf-8") as file:
            for line in self._process.stderr:
                file.write(line)
                file.flush()
                self._tail.append(line.rstrip())

    def _explain_exit(self, code: int) -> trainer_pb2.TrainingEvent:
        event = trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_FAILED)
        if code == -9:
            event.reason = common_pb2.FAILURE_REASON_LOST
            event.message = "The training process was killed (signal 9): by someone, or by the system short of memory."
        elif code < 0:
            event.reason = common_pb2.FAILURE_REASON_LOST
            event.message = f"The training process was ended by signal {-code}."
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

    def __init__(self, module: str, folder: Path, store: ObjectStore, stop_seconds: float) -> None:
        self._module = module
        self._folder = folder
        self._store = store
        self._stop_seconds = stop_seconds
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, int], Attempt] = {}

    def start(self, request: trainer_pb2.StartTrainingRequest) -> bool:
        """Start an attempt unless it is known; end earlier attempts of the same run.

        Returns:
            True if this call started it.

        Raises:
            AlreadyExists: The attempt is known with another dataset or other settings.
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
            job = Job(module=self._module, request=request, folder=folder)
            self._attempts[key] = Attempt(job, self._store, self._stop_seconds)
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
