"""Watch one attempt at its trainer, from the request to start until its last event.

All attempts are watched in one loop (see `watcher_loop`), since a thread for each would be a thousand threads. What
waits for others, such as a short call to a trainer or to the database, is called in one of a few threads.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc

from cellsparse_common import tracing
from cellsparse_common.errors import (
    CellsparseError,
    NotFound,
    ResourceExhausted,
    StorageError,
    Unavailable,
    from_rpc_error,
)
from cellsparse_common.logs import log_context
from cellsparse_common.rpc.channel import open_aio_channel, outgoing_metadata
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.launchers.base import Launcher, Service, Size
from cellsparse_orchestrator.runs.credential_renewal import renew_credentials
from cellsparse_orchestrator.runs.decisions import AttemptOutcome
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.sizes import asked
from cellsparse_orchestrator.runs.trainer_calls import (
    failed,
    find_cause,
    is_away,
    knows_attempt,
    refused,
    start_training,
    stop_training,
    store_is_away,
)
from cellsparse_orchestrator.runs.watcher_loop import WatcherLoop
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

if TYPE_CHECKING:  # it needs the S3 client, which is loaded where there is an S3 store
    from cellsparse_orchestrator.runs.store_credentials import CredentialIssuer

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.2
_EVENT_SECONDS = 60.0
"""Longest wait of an event for those that are stored before it."""
_STORE_PAUSE_SECONDS = 2.0
"""Pause between two requests to start while the trainer cannot reach the store."""


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a watcher waits for its trainer, in seconds."""

    start: float
    """For the trainer to come up and accept the attempt."""
    lost: float
    """For a broken event stream to come back."""
    stop: float
    """For the trainer to end an attempt."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What a watcher reports. All but `changed` may raise CellsparseError."""

    store_event: Callable[[RunAttempt, trainer_pb2.TrainingEvent], "Future[None]"]
    """Stores an event that does not end the attempt, soon; the same event may come twice."""
    specify: Callable[[RunAttempt, dict[str, str]], None]
    """Writes the specification of the attempt's run, with the trainer's versions, before a trainer is asked to start.

    It comes again if the versions were not known before the trainer accepted. Raises StorageError if the store does not
    answer."""
    waiting: Callable[[RunAttempt, str], None]
    """Takes a message when the reason to wait has changed."""
    resized: Callable[[RunAttempt, int, str], None] = lambda *_: None
    """Takes with how many nodes an attempt goes on that cannot have all, and a message."""
    starting: Callable[[RunAttempt, str], int] = lambda *_: 0
    """Takes the address of the trainer before each request to start; returns the number of our lease."""
    issuer: "CredentialIssuer | None" = None
    """Hands out credentials for the store; None: trainers have some."""
    changed: Callable[[], None]
    """Called when the watcher is about to end, and when `no_room` or `no_quota` has changed."""
    trace: Callable[[RunAttempt], str] = lambda _: ""
    """Returns the `traceparent` that the attempt joins; empty: none."""


class AttemptWatcher:
    """Drives one attempt.

    It ends with an `outcome`, or without one when it was detached or could not store an event. Then the attempt goes on
    at its trainer, and another watcher continues where the stored events end.

    Args:
        attempt: What to watch.
        launcher: Knows where the trainer is.
        timeouts: How long to wait.
        callbacks: What to call with news of the attempt.
        loop: Where it is watched.

    Attributes:
        outcome: How the attempt ended; None while it is not known.
        finished: Whether there is nothing more to come.
        no_room: Whether the attempt waits for room in the cluster.
        no_quota: Whether it waits for its project's quota.
    """

    def __init__(
        self, attempt: RunAttempt, launcher: Launcher, timeouts: Timeouts, callbacks: Callbacks, loop: WatcherLoop
    ) -> None:
        self.attempt = attempt
        self.outcome: AttemptOutcome | None = None
        self.finished = False
        self.no_room = False
        self.no_quota = False
        self._launcher = launcher
        self._timeouts = timeouts
        self._callbacks = callbacks
        self._loop = loop
        self._size = _size(attempt)
        self._after = attempt.last_sequence
        self._received = 0
        self._end_confirmed = False
        self._elsewhere = ""
        """Address of another orchestrator's trainer that has the attempt."""
        self._issued: trainer_pb2.StoreCredentials | None = None
        self._call: grpc.aio.UnaryStreamCall | None = None
        self._wake = asyncio.Event()
        self._stopping = self._detaching = False
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to drive the attempt."""
        self._loop.begin(self._run())

    def join(self, seconds: float) -> None:
        """Return when it has ended, or after some seconds."""
        self._over.wait(seconds)

    @property
    def stopping(self) -> bool:
        """Whether the attempt is being ended."""
        return self._stopping

    def end_attempt(self) -> None:
        """Ask the trainer to end the attempt; return at once. The outcome follows in bounded time."""
        self._stopping = True
        self._loop.soon(self._interrupt)

    def detach(self) -> None:
        """End soon and leave the attempt running."""
        self._detaching = True
        self._loop.soon(self._interrupt)

    async def _run(self) -> None:
        """Drive the attempt (see the class)."""
        with log_context(run_id=self.attempt.run_id):
            try:
                outcome = await self._drive()
                self.outcome = await self._loop.call(self._explain, outcome)
            except CellsparseError as error:
                _LOG.warning("attempt %d cannot be watched now: %s", self.attempt.number, error.message)
            except Exception:  # noqa: BLE001 - logged whole
                # Whatever it is, the attempt goes on at its trainer, and the reconciler starts the next watcher.
                _LOG.exception("attempt %d cannot be watched now", self.attempt.number)
            finally:
                self.finished = True
                self.no_room = self.no_quota = False
                self._over.set()
                self._callbacks.changed()

    async def _drive(self) -> AttemptOutcome | None:
        wake = self._wake.set
        self._launcher.subscribe(self.attempt.run_id, self.attempt.number, lambda: self._loop.soon(wake))
        if bool(self.attempt.trainer) and await self._loop.call(self._is_elsewhere):
            self._elsewhere = self.attempt.trainer
            return await self._listen()
        # An attempt with stored events was accepted before. Asking again would do no harm, but takes longer.
        if not self._after:
            trace = await self._loop.call(self._callbacks.trace, self.attempt) if tracing.service() else ""
            with tracing.span("start attempt", parent=trace, root=True, attributes=self._attributes()):
                outcome = await self._start_attempt()
            if outcome is not None or self._detaching:
                return outcome
        return await self._listen()

    def _explain(self, outcome: AttemptOutcome | None) -> AttemptOutcome | None:
        """Return the outcome, marked if the attempt ended because a queue of the cluster took its place back."""
        if outcome is None or self._stopping or not _may_be_preempted(outcome):
            return outcome
        why = self._launcher.preemption(self.attempt.run_id, self.attempt.number)
        if not why:
            return outcome
        evicted = common_pb2.FAILURE_REASON_EVICTED
        return replace(outcome, state=run_states.FAILED, reason=evicted, message=why, preempted=True)

    def _attributes(self) -> tracing.Attributes:
        attempt = self.attempt
        return {
            "cellsparse.run_id": attempt.run_id,
            "cellsparse.attempt": attempt.number,
            "cellsparse.backend": attempt.backend,
        }

    def _is_elsewhere(self) -> bool:
        """Whether the attempt is at a trainer that an orchestrator with another home has started on this machine."""
        asked = self.attempt.trainer
        if not asked or not self._launcher.stops_trainers:
            return False
        own = self._launcher.service(self.attempt.backend)
        if own is not None and own.address == asked:
            return False
        return knows_attempt(self.attempt, asked, self._timeouts.lost)

    async def _start_attempt(self) -> AttemptOutcome | None:
        """Ask the trainer to start until it accepts; return an outcome if it never will."""
        deadline = time.monotonic() + self._timeouts.start
        problem = f"The {self.attempt.backend} trainer did not come up."
        asked, said = False, ""
        while self._clear_wake():
            if self._stopping:
                return await self._listen() if asked else AttemptOutcome(state=run_states.CANCELLED)
            trainer = await self._loop.call(self._ensure)
            if trainer.missing:
                return failed(trainer.reason or common_pb2.FAILURE_REASON_UNSCHEDULABLE, trainer.message)
            if trainer.fewer:
                await self._loop.call(self._go_on_with_fewer, trainer)
                continue
            if (trainer.no_room, trainer.no_quota) != (self.no_room, self.no_quota):
                self.no_room, self.no_quota = trainer.no_room, trainer.no_quota
                self._callbacks.changed()
            if trainer.waiting:
                deadline = time.monotonic() + self._timeouts.start
                said = await self._say_waiting(trainer.message, said)
            if trainer.address:
                asked = True
                try:
                    await self._loop.call(self._ask_to_start, trainer)
                    return None
                except (grpc.RpcError, StorageError) as failure:
                    error = from_rpc_error(failure) if isinstance(failure, grpc.RpcError) else failure
                    if not is_away(error) and not store_is_away(error):
                        return refused(error)
                    if store_is_away(error):
                        # Nothing has begun, so nothing has failed: the attempt begins when the store answers.
                        deadline = time.monotonic() + self._timeouts.start
                        said = await self._say_waiting(f"waiting for the store: {error.message}", said)
                        await self._wait(_STORE_PAUSE_SECONDS)
                    problem = f"The {self.attempt.backend} trainer did not accept the attempt: {error.message}"
            elif trainer.message:
                problem = trainer.message
            if time.monotonic() > deadline:
                return failed(common_pb2.FAILURE_REASON_LOST, problem)
            await self._pause(trainer)
        return None

    def _go_on_with_fewer(self, trainer: Service) -> None:
        """Ask for no more nodes than can be had; waits."""
        attempt, nodes = self.attempt, trainer.fewer
        message = (
            f"Attempt {attempt.number} goes on with {nodes} of {asked(attempt.settings)} nodes, since no more can be "
            f"had now: {trainer.message}"
        )
        self._callbacks.resized(attempt, nodes, message)
        self.attempt = replace(attempt, nodes=nodes)
        self._size = _size(self.attempt)

    def _ask_to_start(self, trainer: Service) -> None:
        """Ask a trainer to start, once the run's specification is stored; waits."""
        fence = self._callbacks.starting(self.attempt, trainer.address)
        self._callbacks.specify(self.attempt, trainer.versions)
        versions = start_training(self.attempt, trainer, fence, self._credentials())
        if versions != trainer.versions:
            try:
                self._callbacks.specify(self.attempt, versions)
            except StorageError as error:
                # The attempt is worth more than the list of versions; the trainer writes them into the model as well.
                _LOG.warning("the versions of the trainer are not in the specification: %s", error.message)

    def _credentials(self) -> trainer_pb2.StoreCredentials | None:
        """Return the attempt's credentials for the store, which may be sent several times; None: it needs none.

        Raises:
            StorageError: There are none now.
        """
        issuer = self._callbacks.issuer
        if issuer is None:
            return None
        if self._issued is None or self._issued.expire_time.ToSeconds() - time.time() < issuer.seconds / 2:
            self._issued = issuer.issue(self.attempt)
        return self._issued

    async def _say_waiting(self, message: str, said: str) -> str:
        """Report what the attempt waits for, unless that has been said, and return it."""
        if message != said:
            await self._loop.call(self._callbacks.waiting, self.attempt, message)
        return message

    async def _listen(self) -> AttemptOutcome | None:
        """Store the attempt's events until its last one; its credentials are renewed meanwhile."""
        if self._callbacks.issuer is None:
            return await self._follow()
        renewal = asyncio.create_task(
            renew_credentials(self.attempt, self._callbacks.issuer, self._addresses, self._loop)
        )
        try:
            return await self._follow()
        finally:
            renewal.cancel()

    def _addresses(self) -> tuple[str, ...]:
        trainer = self._trainer()
        return tuple(trainer.hosts) or (trainer.address,)

    async def _follow(self) -> AttemptOutcome | None:
        """Store the attempt's events until its last one, also across short breaks of the stream."""
        broken_since = time.monotonic()
        while self._clear_wake():
            trainer = await self._loop.call(self._trainer)
            if trainer.missing:
                return failed(trainer.reason, trainer.message) if trainer.reason else self._lost(trainer.message)
            before, stopping = self._received, self._stopping
            settled = await self._loop.call(self._confirm_end, trainer.address) if stopping else True
            outcome = await self._stream(trainer.address) if trainer.address and settled else None
            if outcome is not None:
                others = trainer.hosts[1:]
                return await self._loop.call(find_cause, self.attempt, outcome, others) if others else outcome
            asked_meanwhile = self._stopping and not stopping
            if self._received > before or (trainer.waiting and not stopping) or asked_meanwhile:
                broken_since = time.monotonic()
            # A trainer that is just coming up, and that this watcher has not heard from, may still know the attempt.
            starting = not self._received and not trainer.address
            if time.monotonic() - broken_since > (self._timeouts.start if starting else self._timeouts.lost):
                return self._lost("it does not answer any more" if trainer.address else trainer.message)
            await self._pause(trainer)
        return None

    def _ensure(self) -> Service:
        """Return the trainer that the attempt is to have."""
        attempt = self.attempt
        return self._launcher.ensure(
            attempt.backend, attempt.run_id, attempt.number, self._size, attempt.project_id or ""
        )

    def _trainer(self) -> Service:
        """Return the trainer that has the attempt."""
        if self._elsewhere:
            return Service(name=self.attempt.backend, address=self._elsewhere)
        return self._launcher.find(self.attempt.backend, self.attempt.run_id, self.attempt.number, self._size)

    def _clear_wake(self) -> bool:
        """Clear the wake-up before looking at anything; return False when the watcher should end."""
        self._wake.clear()
        return not self._detaching

    async def _pause(self, trainer: Service) -> None:
        """Wait until it makes sense to ask again."""
        await self._wait(trainer.again_seconds if trainer.waiting else _PAUSE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Wait to be woken, for some seconds at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _stream(self, address: str) -> AttemptOutcome | None:
        """Store events as they come; return the outcome, or None if the stream breaks before the last event."""
        try:
            async with open_aio_channel(address) as channel:
                return await self._read(trainer_pb2_grpc.TrainerServiceStub(channel))
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            if isinstance(error, NotFound):
                return self._lost("it was restarted and does not know the attempt any more")
            if not is_away(error):
                return refused(error)
        except asyncio.CancelledError:
            if not (self._detaching or self._stopping):
                raise
        finally:
            self._call = None
        return None

    async def _read(self, trainer: trainer_pb2_grpc.TrainerServiceStub) -> AttemptOutcome | None:
        request = trainer_pb2.WatchTrainingRequest(
            run_id=self.attempt.run_id, attempt=self.attempt.number, after_sequence=self._after
        )
        # The stream lasts as long as the training. Keepalive pings of the channel notice a peer that is gone.
        timeout = self._timeouts.stop if self._end_confirmed else None
        call = trainer.WatchTraining(request, timeout=timeout, metadata=outgoing_metadata())
        self._call = call
        if self._detaching or (self._stopping and not self._end_confirmed):
            return None
        async for answer in call:
            self._received += 1
            event = answer.event
            if event.state in run_states.FINAL:
                return AttemptOutcome(
                    state=event.state,
                    reason=event.reason,
                    message=event.message,
                    damaged=event.damaged,
                    event=event,
                )
            await self._store(event)
            self._after = event.sequence
        return None

    async def _store(self, event: trainer_pb2.TrainingEvent) -> None:
        stored = asyncio.wrap_future(self._callbacks.store_event(self.attempt, event))
        try:
            await asyncio.wait_for(stored, _EVENT_SECONDS)
        except TimeoutError:
            raise Unavailable(f"The database was busy for {_EVENT_SECONDS:g} s; try again.") from None

    def _confirm_end(self, address: str) -> bool:
        """Ask the trainer to end the attempt, until it has confirmed that; return whether it has."""
        if address and not self._end_confirmed:
            error = stop_training(self.attempt, address, self._timeouts.stop)
            self._end_confirmed = error is None
            if isinstance(error, ResourceExhausted):
                self._received += 1  # it is there, and busy
        return self._end_confirmed

    def _interrupt(self) -> None:
        """End the stream and any pause; called in the loop."""
        self._wake.set()
        if self._call is not None:
            self._call.cancel()

    def _lost(self, what: str) -> AttemptOutcome:
        sentence = f"The {self.attempt.backend} trainer was lost during attempt {self.attempt.number}: {what}"
        return failed(common_pb2.FAILURE_REASON_LOST, sentence if sentence.endswith((".", "!")) else f"{sentence}.")


def _size(attempt: RunAttempt) -> Size:
    each = max(1, attempt.settings.processes_per_node)
    return Size(nodes=attempt.nodes or asked(attempt.settings), processes=each, fewest=attempt.min_nodes)


def _may_be_preempted(outcome: AttemptOutcome) -> bool:
    """Return whether an attempt ended as one does whose pods are deleted: it was lost, or told to end."""
    return outcome.state == run_states.CANCELLED or (
        outcome.state == run_states.FAILED and outcome.reason in run_states.RETRIED
    )
