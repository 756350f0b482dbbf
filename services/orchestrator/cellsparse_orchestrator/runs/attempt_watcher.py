"""Follows one attempt at its trainer, from asking it to start to its last event, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import grpc

from cellsparse_common.errors import (
    Cancelled,
    CellsparseError,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    StorageError,
    Unavailable,
    from_rpc_error,
)
from cellsparse_common.logs import log_context
from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.launchers.base import Launcher, Service, Size
from cellsparse_orchestrator.runs.decisions import AttemptOutcome
from cellsparse_orchestrator.runs.transitions import RunAttempt
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

_LOG = logging.getLogger(__name__)
_CALL_SECONDS = 15.0
_PAUSE_SECONDS = 0.2
_EXPLAIN_SECONDS = 5.0
"""Longest time to ask the other nodes why they ended."""
_UNKNOWN = (common_pb2.FAILURE_REASON_UNSPECIFIED, common_pb2.FAILURE_REASON_LOST)
_RANKS_PORT = 29400
"""First port on which the processes of several nodes speak to each other: torchrun's own default."""
_GONE = (Unavailable, DeadlineExceeded, ResourceExhausted, Cancelled)
"""What a trainer that is away, starting, ending or overrun answers, or the transport in its place."""


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long to wait for what, in seconds."""

    start: float
    """For a trainer to come up and accept the attempt."""
    lost: float
    """For a broken event stream to come back."""
    stop: float
    """For a trainer to end an attempt."""


class AttemptWatcher(threading.Thread):
    """Drives one attempt.

    It ends with an `outcome`; or without one, when it was told to let go or could not store what it heard: then the
    attempt goes on at its trainer, and another follower takes it up where the stored events end. `finished` says that
    there is nothing more to come, shortly before the thread is gone; `no_room`, that the attempt waits for room.

    Args:
        attempt: What to follow.
        launcher: Knows where the trainer is.
        patience: How long to wait.
        store: Keeps an event that does not end the attempt; an event may come twice. Raises CellsparseError.
        accepted: Called with the trainer's versions when it has accepted the attempt. Raises CellsparseError.
        waits: Called with a sentence when what the attempt waits for has changed. Raises CellsparseError.
        news: Called when the thread is about to end, and when `no_room` has changed.
    """

    def __init__(
        self,
        attempt: RunAttempt,
        launcher: Launcher,
        timeouts: Timeouts,
        *,
        store: Callable[[RunAttempt, trainer_pb2.TrainingEvent], None],
        accepted: Callable[[RunAttempt, dict[str, str]], None],
        waits: Callable[[RunAttempt, str], None],
        news: Callable[[], None],
    ) -> None:
        super().__init__(name=f"follow-{attempt.run_id}", daemon=True)
        self.attempt = attempt
        self.outcome: AttemptOutcome | None = None
        self.finished = False
        self.no_room = False
        self._launcher = launcher
        self._timeouts = timeouts
        self._store = store
        self._accepted = accepted
        self._waits = waits
        self._tell = news
        self._size = Size(nodes=max(1, attempt.settings.nodes), processes=max(1, attempt.settings.processes_per_node))
        self._after = attempt.last_sequence
        self._heard = 0
        self._asked_to_end = False
        self._lock = threading.Lock()
        self._call: grpc.Future | None = None
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._detaching = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether the attempt is being ended."""
        return self._stopping.is_set()

    def end_attempt(self) -> None:
        """Ask the trainer to end the attempt; returns at once, the outcome comes in bounded time."""
        self._stopping.set()
        self._news.set()
        self._interrupt_stream()

    def detach(self) -> None:
        """End this thread soon and leave the attempt as it is."""
        self._detaching.set()
        self._news.set()
        self._interrupt_stream()

    def run(self) -> None:
        """Drive the attempt (see the class)."""
        with log_context(run_id=self.attempt.run_id):
            try:
                self.outcome = self._drive()
            except CellsparseError as error:
                _LOG.warning("attempt %d cannot be followed now: %s", self.attempt.number, error.message)
            except Exception:  # noqa: BLE001 - logged whole
                # Whatever it is, the attempt goes on at its trainer: the reconciler sends the next follower.
                _LOG.exception("attempt %d cannot be followed now", self.attempt.number)
            finally:
                self.finished = True
                self.no_room = False
                self._tell()

    def _drive(self) -> AttemptOutcome | None:
        self._launcher.subscribe(self.attempt.run_id, self.attempt.number, self._news.set)
        # An attempt with stored events was accepted before; asking again would be right, too, but slower.
        if not self._after:
            refused = self._start_attempt()
            if refused is not None or self._detaching.is_set():
                return refused
        return self._listen()

    def _start_attempt(self) -> AttemptOutcome | None:
        """Ask the trainer to start, until it has accepted; return an outcome if that will not happen."""
        deadline = time.monotonic() + self._timeouts.start
        problem = f"The {self.attempt.backend} trainer did not come up."
        asked, said = False, ""
        while self._look_again():
            if self._stopping.is_set():
                return self._listen() if asked else AttemptOutcome(state=run_states.CANCELLED)
            place = self._launcher.ensure(self.attempt.backend, self.attempt.run_id, self.attempt.number, self._size)
            if place.missing:
                return _failed(place.reason or common_pb2.FAILURE_REASON_UNSCHEDULABLE, place.message)
            if place.no_room != self.no_room:
                self.no_room = place.no_room
                self._tell()
            if place.waiting:
                deadline = time.monotonic() + self._timeouts.start
                if place.message != said:
                    said = place.message
                    self._waits(self.attempt, said)
            if place.address:
                asked = True
                try:
                    self._accepted(self.attempt, self._ask_to_start(place))
                    return None
                except grpc.RpcError as rpc_error:
                    error = from_rpc_error(rpc_error)
                    if not _is_away(error):
                        return _failed(_reason(error), error.message)
                    problem = f"The {self.attempt.backend} trainer did not accept the attempt: {error.message}"
            elif place.message:
                problem = place.message
            if time.monotonic() > deadline:
                return _failed(common_pb2.FAILURE_REASON_LOST, problem)
            self._pause(place)
        return None

    def _ask_to_start(self, place: Service) -> dict[str, str]:
        """Ask the trainers of all nodes to start, the first one last; return its versions.

        What was asked for twice is started once. A node whose first one never starts gives up by itself.
        """
        hosts = place.hosts or (place.address,)
        versions = place.versions
        for node in reversed(range(len(hosts))):
            request = trainer_pb2.StartTrainingRequest(
                run_id=self.attempt.run_id,
                attempt=self.attempt.number,
                dataset_id=self.attempt.dataset_id,
                settings=self.attempt.settings,
            )
            if place.hosts:
                names = [host.rpartition(":")[0] for host in hosts]
                request.placement.CopyFrom(trainer_pb2.Placement(hosts=names, node=node, port=_RANKS_PORT))
            with open_channel(hosts[node]) as channel:
                stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                stub.StartTraining(request, timeout=_CALL_SECONDS)
                versions = versions or dict(_describe(stub).versions)
        return versions

    def _listen(self) -> AttemptOutcome | None:
        """Store the attempt's events until its last one, through short breaks of the stream."""
        broken_since = time.monotonic()
        while self._look_again():
            place = self._launcher.find(self.attempt.backend, self.attempt.run_id, self.attempt.number, self._size)
            if self._stopping.is_set() and not self._asked_to_end:
                self._ask_to_end(place.address)
            if place.missing:
                return _failed(place.reason, place.message) if place.reason else self._lost(place.message)
            heard = self._heard
            outcome = self._stream(place.address) if place.address else None
            if outcome is not None:
                return self._explained(outcome, place.hosts[1:])
            if self._stopping.is_set() and not self._asked_to_end:
                continue
            if self._heard > heard or (place.waiting and not self._asked_to_end):
                broken_since = time.monotonic()
            # A service that only comes up, seen for the first time by this follower, may still know the attempt.
            starting = not self._heard and not place.address
            if time.monotonic() - broken_since > (self._timeouts.start if starting else self._timeouts.lost):
                return self._lost("it does not answer any more" if place.address else place.message)
            self._pause(place)
        return None

    def _look_again(self) -> bool:
        """Forget old news, before anything is looked at; return whether there is anything to look at still."""
        self._news.clear()
        return not self._detaching.is_set()

    def _pause(self, place: Service) -> None:
        """Wait until asking again makes sense."""
        self._news.wait(place.again_seconds if place.waiting else _PAUSE_SECONDS)

    def _stream(self, address: str) -> AttemptOutcome | None:
        """Store events as they come; return the outcome, None if the stream breaks before the last event."""
        request = trainer_pb2.WatchTrainingRequest(
            run_id=self.attempt.run_id, attempt=self.attempt.number, after_sequence=self._after
        )
        # The stream lasts as long as the training: keepalive pings of the channel notice a peer that is gone.
        timeout = self._timeouts.stop if self._asked_to_end else None
        try:
            with open_channel(address) as channel:
                call = trainer_pb2_grpc.TrainerServiceStub(channel).WatchTraining(request, timeout=timeout)
                with self._lock:
                    self._call = call
                if self._detaching.is_set() or (self._stopping.is_set() and not self._asked_to_end):
                    return None
                for answer in call:
                    self._heard += 1
                    event = answer.event
                    if event.state in run_states.FINAL:
                        return AttemptOutcome(
                            state=event.state, reason=event.reason, message=event.message, event=event
                        )
                    self._store(self.attempt, event)
                    self._after = event.sequence
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            if isinstance(error, NotFound):
                return self._lost("it was restarted and does not know the attempt any more")
            if not _is_away(error):
                return _failed(_reason(error), error.message)
        return None

    def _explained(self, outcome: AttemptOutcome, others: Sequence[str]) -> AttemptOutcome:
        """Return the outcome with the reason of the node where it lies.

        A training on several nodes is followed on the first one, which of a process that failed on another one only
        knows that it is gone; that its memory ran out, say, is known there.
        """
        if outcome.reason != common_pb2.FAILURE_REASON_LOST:
            return outcome
        deadline = time.monotonic() + _EXPLAIN_SECONDS
        for host in others:
            event = self._last_event(host, deadline - time.monotonic())
            if event is not None and event.state == run_states.FAILED and event.reason not in _UNKNOWN:
                return replace(outcome, reason=event.reason, message=event.message)
        return outcome

    def _last_event(self, address: str, seconds: float) -> trainer_pb2.TrainingEvent | None:
        """Return the attempt's last event at a trainer; None if it did not end there, or nobody answers in time."""
        request = trainer_pb2.WatchTrainingRequest(run_id=self.attempt.run_id, attempt=self.attempt.number)
        last = None
        try:
            with open_channel(address) as channel:
                for answer in trainer_pb2_grpc.TrainerServiceStub(channel).WatchTraining(request, timeout=seconds):
                    last = answer.event
        except grpc.RpcError:
            return None  # what is not known there, or not in time, explains nothing
        return last

    def _ask_to_end(self, address: str) -> None:
        """Ask once, within `patience.stop`; a trainer that does not answer is found lost soon after."""
        self._asked_to_end = True
        if not address:
            return
        request = trainer_pb2.StopTrainingRequest(run_id=self.attempt.run_id, attempt=self.attempt.number)
        try:
            with open_channel(address) as channel:
                trainer_pb2_grpc.TrainerServiceStub(channel).StopTraining(request, timeout=self._timeouts.stop)
        except grpc.RpcError as error:
            _LOG.warning("the trainer did not confirm the end of the attempt: %s", from_rpc_error(error).message)

    def _interrupt_stream(self) -> None:
        with self._lock:
            if self._call is not None:
                self._call.cancel()

    def _lost(self, what: str) -> AttemptOutcome:
        sentence = f"The {self.attempt.backend} trainer was lost during attempt {self.attempt.number}: {what}"
        return _failed(common_pb2.FAILURE_REASON_LOST, sentence if sentence.endswith((".", "!")) else f"{sentence}.")


def _describe(stub: trainer_pb2_grpc.TrainerServiceStub) -> trainer_pb2.DescribeResponse:
    answer: trainer_pb2.DescribeResponse = stub.Describe(trainer_pb2.DescribeRequest(), timeout=_CALL_SECONDS)
    return answer


def _failed(reason: int, message: str) -> AttemptOutcome:
    return AttemptOutcome(state=run_states.FAILED, reason=reason, message=message)


def _is_away(error: CellsparseError) -> bool:
    return isinstance(error, _GONE) and not isinstance(error, StorageError)


def _reason(error: CellsparseError) -> int:
    """Return what a trainer's refusal means for the run."""
    if isinstance(error, StorageError):
        return common_pb2.FAILURE_REASON_STORAGE
    if error.status in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    ):
        return common_pb2.FAILURE_REASON_USER_ERROR
    return common_pb2.FAILURE_REASON_INTERNAL
