"""A trainer that only takes time: the real contract over gRPC, in a thread instead of a process.

It stands in for real trainers where what is tested is what surrounds them, and where dozens of them run at once.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

STEPS_PER_SECOND = 100
TOLD_SECONDS = 0.5
BACKEND = "unet"


@dataclass
class Training:
    """One attempt; times are those of `time.monotonic`."""

    run_id: str
    attempt: int
    began: float
    ended: float = 0.0
    """When it succeeded; 0 if it has not."""


class TinyTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Serves at one address until `stop`."""

    def __init__(self, address: str) -> None:
        self.host = address.rpartition(":")[0]
        self.trainings: list[Training] = []
        self._events: dict[tuple[str, int], list[trainer_pb2.TrainingEvent]] = {}
        self._changed = threading.Condition()
        self._over = self._hurry = False
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, self._server)
        checks = health.HealthServicer()
        checks.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        assert self._server.add_insecure_port(address), f"{address} cannot be used"
        self._server.start()

    def stop(self) -> None:
        """End everything at once, as a killed process would."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._server.stop(0)

    def finish(self) -> None:
        """Let all trainings reach their last step now."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    def Describe(self, request, context):
        return trainer_pb2.DescribeResponse(backend=BACKEND, versions={"tiny": "1"}, devices=["cpu"])

    def StartTraining(self, request, context):
        key = (request.run_id, request.attempt)
        with self._changed:
            if key in self._events:
                return trainer_pb2.StartTrainingResponse(started=False)
            self._events[key] = []
            training = Training(request.run_id, request.attempt, time.monotonic())
            self.trainings.append(training)
        threading.Thread(target=self._train, args=(training, request.settings.steps), daemon=True).start()
        return trainer_pb2.StartTrainingResponse(started=True)

    def WatchTraining(self, request, context):
        key, after = (request.run_id, request.attempt), request.after_sequence
        if key not in self._events:
            context.abort(grpc.StatusCode.NOT_FOUND, f"There is no attempt {key}.")
        while context.is_active():
            with self._changed:
                if len(self._events[key]) == after and not self._over:
                    self._changed.wait(1.0)
                found = self._events[key][after:]
            for event in found:
                after = event.sequence
                yield trainer_pb2.WatchTrainingResponse(event=event)
                if event.state == common_pb2.RUN_STATE_SUCCEEDED:
                    return

    def _train(self, training: Training, steps: int) -> None:
        end = training.began + steps / STEPS_PER_SECOND
        self._say(training, common_pb2.RUN_STATE_RUNNING, 0, steps)
        while (left := end - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._hurry, min(left, TOLD_SECONDS))
                if self._over:
                    return
                if self._hurry:
                    break
            done = steps - int(max(0.0, end - time.monotonic()) * STEPS_PER_SECOND)
            self._say(training, common_pb2.RUN_STATE_RUNNING, done, steps)
        training.ended = time.monotonic()
        self._say(training, common_pb2.RUN_STATE_SUCCEEDED, steps, steps)

    def _say(self, training: Training, state: int, step: int, steps: int) -> None:
        with self._changed:
            known = self._events[training.run_id, training.attempt]
            event = trainer_pb2.TrainingEvent(sequence=len(known) + 1, state=state, step=step, total_steps=steps)
            event.time.GetCurrentTime()
            known.append(event)
            self._changed.notify_all()
