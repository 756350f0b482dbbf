"""Streams from other services: their answers, their refusals, and what is said when a service goes away."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import NotFound, Unavailable
from cellsparse_orchestrator.calls import open_stream
from cellsparse_orchestrator.launchers.base import Service
from cellsparse_orchestrator.launchers.wake_queue import Waiter
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Answers once; before and after that it does what a test says."""

    def __init__(self):
        self.first = self.then = lambda context: None
        self.server = grpc.server(ThreadPoolExecutor(2))
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Evaluate(self, request, context):
        self.first(context)
        yield trainer_pb2.EvaluateResponse(items_done=1)
        self.then(context)


class OneService:
    """A launcher with one trainer."""

    def __init__(self, address):
        self.found = Service(name="unet", address=address, healthy=True)

    def service(self, name):
        return self.found if name == "unet" else None


@pytest.fixture
def trainer():
    made = Trainer()
    yield made
    made.server.stop(0)


def answers(trainer, name="unet"):
    def begin(channel):
        return trainer_pb2_grpc.TrainerServiceStub(channel).Evaluate(trainer_pb2.EvaluateRequest(), timeout=PATIENCE)

    with open_stream(OneService(trainer.address), name, Waiter(PATIENCE), begin) as stream:
        return [answer.items_done for answer in stream]


def test_answers_come_to_their_end(trainer):
    assert answers(trainer) == [1]


def test_a_refusal_of_the_service_keeps_its_status(trainer):
    trainer.then = lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "There is no model.")
    with pytest.raises(NotFound, match=r"There is no model\."):
        answers(trainer)


def test_a_service_that_goes_away_is_named(trainer):
    trainer.then = lambda context: trainer.server.stop(0).wait(PATIENCE)
    with pytest.raises(Unavailable, match=r"The unet service at 127\.0\.0\.1"):
        answers(trainer)


def test_a_service_that_is_not_configured_is_named(trainer):
    with pytest.raises(Unavailable, match="No other service is configured"):
        answers(trainer, "other")


def test_the_call_is_cancelled_at_the_end_of_the_block(trainer):
    cancelled = threading.Event()
    trainer.first = lambda context: context.add_callback(cancelled.set)
    trainer.then = lambda context: cancelled.wait(PATIENCE)

    def begin(channel):
        return trainer_pb2_grpc.TrainerServiceStub(channel).Evaluate(trainer_pb2.EvaluateRequest(), timeout=PATIENCE)

    with open_stream(OneService(trainer.address), "unet", Waiter(PATIENCE), begin) as stream:
        assert next(stream).items_done == 1
    assert cancelled.wait(PATIENCE)
