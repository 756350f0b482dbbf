"""All simulated trainers in one process: they serve the real gRPC contract, but only time passes.

Usage: PYTHONPATH=benchmarks python -m simulation.trainers SCENARIO FOLDER

Listens on every loopback address and writes its port to FOLDER/port. The `steps` of a run are the milliseconds that it
trains. A datagram to FOLDER/kills ends an attempt as the loss of its node would. On SIGTERM the process writes
FOLDER/trainings.json.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from simulation.scenario import Scenario, from_json

from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

CHECKPOINT_SHARE = 0.1
"""Checkpoints are written every tenth of a run; the attempt after a lost one resumes from the last of them."""
_STOP_SECONDS = 2.0


@dataclass(kw_only=True)
class Training:
    """One attempt; times are those of `time.time`."""

    run_id: str
    attempt: int
    began: float
    first_ms: int
    """Milliseconds of training that earlier attempts have completed."""
    total_ms: int
    completed: float = 0.0
    """When its last event was due; 0 until that event is sent."""
    ended: float = 0.0
    """When it was killed or stopped; 0 if that came after its completion."""
    told: int = 0
    """Sequence number of the last event sent."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def done_ms(self, at: float) -> int:
        """Return how much of the run is trained at a time, milliseconds."""
        return min(self.total_ms, self.first_ms + int(1000 * max(0.0, at - self.began)))


class Trainers(trainer_pb2_grpc.TrainerServiceServicer):
    """Serves every attempt of every run."""

    def __init__(self, scenario: Scenario) -> None:
        self._period = scenario.event_seconds
        self._random = random.Random(scenario.seed)
        self.trainings: dict[tuple[str, int], Training] = {}
        self._kept: dict[str, int] = {}
        self._newest: dict[str, Training] = {}
        self._dead: set[tuple[str, int]] = set()
        self.twice: list[str] = []
        """Runs of which an attempt began while another one was running, or after one was completed."""

    async def Describe(self, request, context):  # noqa: N802 - the contract's name
        return trainer_pb2.DescribeResponse(backend="unet", versions={"simulated": "1"}, devices=["cpu"])

    async def StartTraining(self, request, context):  # noqa: N802
        key = (request.run_id, request.attempt)
        if key in self.trainings:
            return trainer_pb2.StartTrainingResponse(started=False)
        if key in self._dead:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "The node is gone.")
        before = self._newest.get(request.run_id)
        if before is not None and not before.ended:
            self.twice.append(request.run_id)
        training = Training(
            run_id=request.run_id,
            attempt=request.attempt,
            began=time.time(),
            first_ms=self._kept.get(request.run_id, 0),
            total_ms=request.settings.steps,
        )
        self.trainings[key] = self._newest[request.run_id] = training
        return trainer_pb2.StartTrainingResponse(started=True)

    async def WatchTraining(self, request, context) -> AsyncIterator[trainer_pb2.WatchTrainingResponse]:  # noqa: N802
        training = self.trainings.get((request.run_id, request.attempt))
        if training is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no attempt {request.attempt}.")
        sequence = request.after_sequence
        end = training.began + (training.total_ms - training.first_ms) / 1000
        while True:
            sequence += 1
            due = min(end, training.began + (sequence - 1) * self._period)
            if not training.over.is_set() and (wait := due - time.time()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(training.over.wait(), wait)
            if training.over.is_set():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "The node is gone.")
            training.told = max(training.told, sequence)
            if due >= end:
                training.completed = end
                yield trainer_pb2.WatchTrainingResponse(event=self._event(training, sequence, due, last=True))
                return
            yield trainer_pb2.WatchTrainingResponse(event=self._event(training, sequence, due, last=False))

    async def StopTraining(self, request, context):  # noqa: N802
        self.end(request.run_id, request.attempt)
        return trainer_pb2.StopTrainingResponse()

    def end(self, run_id: str, attempt: int) -> None:
        """End an attempt silently; its training since the last checkpoint is lost."""
        self._dead.add((run_id, attempt))
        training = self.trainings.get((run_id, attempt))
        if training is None or training.ended or training.completed:
            return  # a completed training has sent its last event, so the loss of its pod does not matter any more
        training.ended = time.time()
        step = max(1, int(training.total_ms * CHECKPOINT_SHARE))
        self._kept[run_id] = max(training.first_ms, training.done_ms(training.ended) // step * step)
        training.over.set()

    def _event(self, training: Training, sequence: int, due: float, *, last: bool) -> trainer_pb2.TrainingEvent:
        done = training.done_ms(due)
        event = trainer_pb2.TrainingEvent(
            sequence=sequence,
            state=common_pb2.RUN_STATE_SUCCEEDED if last else common_pb2.RUN_STATE_RUNNING,
            step=done,
            total_steps=training.total_ms,
            epoch=100 * done / training.total_ms,
            losses={"loss": self._random.random(), "nll": self._random.random(), "dice": self._random.random()},
            images_per_second=50 * self._random.random(),
            eta_seconds=(training.total_ms - done) / 1000,
            peak_memory_mib=949.0,
            device="cpu",
        )
        event.time.FromNanoseconds(int(due * 1e9))
        if last:
            event.validation["score"] = self._random.random()
            event.model_step = training.total_ms
        return event


async def main() -> None:
    scenario, folder = from_json(sys.argv[1]), Path(sys.argv[2])
    trainers, over, loop = Trainers(scenario), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    kills = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    kills.setblocking(False)
    kills.bind(str(folder / "kills"))
    loop.add_reader(kills.fileno(), lambda: _kill(kills, trainers))
    server = grpc.aio.server()
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(trainers, server)
    port = server.add_insecure_port("0.0.0.0:0")
    await server.start()
    (folder / "port.new").write_text(str(port))
    (folder / "port.new").rename(folder / "port")
    while not over.is_set() and os.getppid() != 1:  # end with a parent that was killed
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 1.0)
    await server.stop(_STOP_SECONDS)
    record = {"trainings": [_shown(training) for training in trainers.trainings.values()], "twice": trainers.twice}
    record["cpu_seconds"] = time.process_time()
    (folder / "trainings.json").write_text(json.dumps(record))


def _kill(kills: socket.socket, trainers: Trainers) -> None:
    run_id, attempt = json.loads(kills.recv(4096))
    trainers.end(run_id, attempt)


def _shown(training: Training) -> dict[str, object]:
    return {name: getattr(training, name) for name in ("run_id", "attempt", "began", "completed", "ended", "told")}


if __name__ == "__main__":
    asyncio.run(main())
