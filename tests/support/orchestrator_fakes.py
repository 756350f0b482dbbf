"""A trainer that does what a test says, and a launcher that knows only it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.launchers.base import ONE, Service
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc


class FakeTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Keeps a list of events per attempt; tests add to it with `say`."""

    def __init__(self):
        self.events = {}
        self.asked = []
        self.refuse_with = None
        self.refuse_stop_with = []
        self.changed = threading.Condition()
        self.streams = []

    def say(self, run_id, attempt=1, **fields):
        with self.changed:
            known = self.events[run_id, attempt]
            known.append(trainer_pb2.TrainingEvent(sequence=len(known) + 1, **fields))
            self.changed.notify_all()

    def break_streams(self):
        with self.changed:
            for context in self.streams:
                context.cancel()
            self.streams.clear()

    def Describe(self, request, context):
        with self.changed:
            ended = {key for key, events in self.events.items() if events and events[-1].state in run_states.FINAL}
            going = self.events.keys() - ended
        return trainer_pb2.DescribeResponse(active=[f"{run_id}/{attempt}" for run_id, attempt in going])

    def StartTraining(self, request, context):
        if self.refuse_with is not None:
            context.abort(*self.refuse_with)
        key = (request.run_id, request.attempt)
        with self.changed:
            self.asked.append(key)
            new = key not in self.events
            self.events.setdefault(key, [])
            self.changed.notify_all()
        return trainer_pb2.StartTrainingResponse(started=new)

    def WatchTraining(self, request, context):
        key = (request.run_id, request.attempt)
        if key not in self.events:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        with self.changed:
            self.streams.append(context)
        after = request.after_sequence
        while context.is_active():
            with self.changed:
                found = self.events[key][after:]
                if not found:
                    self.changed.wait(0.1)
            for event in found:
                after = event.sequence
                yield trainer_pb2.WatchTrainingResponse(event=event)
                if event.state in run_states.FINAL:
                    return

    def StopTraining(self, request, context):
        if self.refuse_stop_with:
            context.abort(self.refuse_stop_with.pop(), "not now")
        if not self.events[request.run_id, request.attempt][-1:] or (
            self.events[request.run_id, request.attempt][-1].state not in run_states.FINAL
        ):
            self.say(request.run_id, request.attempt, state=run_states.CANCELLED)
        return trainer_pb2.StopTrainingResponse(state=self.events[request.run_id, request.attempt][-1].state)

    def serve(self):
        server = grpc.server(ThreadPoolExecutor(max_workers=32))
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        return server, address


class FakeLauncher:
    def __init__(self, address, *, stops_trainers=False):
        self.trainer = Service(name="unet", address=address, healthy=True, versions={"numpy": "2"})
        self.stops_trainers = stops_trainers
        self.preempted = ""
        self.projects = {}
        self.released = []
        self.kept = []

    def start(self): ...

    def stop(self): ...

    def absent(self):
        return []

    def services(self):
        return [self.trainer]

    def service(self, name):
        return self.trainer if name == "unet" else None

    def ensure(self, backend, run_id, attempt, size=ONE, project=""):
        self.projects[run_id] = project
        return self.trainer

    def find(self, backend, run_id, attempt, size=ONE):
        return self.trainer

    def preemption(self, run_id, attempt):
        return self.preempted

    def release(self, run_id, attempt):
        self.released.append((run_id, attempt))

    def subscribe(self, run_id, attempt, on_change): ...

    def keep_only(self, under_way, unended):
        self.kept.append(under_way())
        return True
