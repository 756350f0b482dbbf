"""Many clients predict at the same time: each gets its answer, and work that nobody waits for gives up its place."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, until
from support.tiny_dataset import blobs

from cellsparse import Client
from cellsparse.errors import Busy
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_proto.v1 import orchestrator_pb2, orchestrator_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from cellsparse_trainer.processes.inference_pool import MOST_TOGETHER

PROCESSES, CLIENTS, PREDICTIONS = 5, 10, 2
WAITING = 4
TOO_MANY = MOST_TOGETHER + WAITING + 3
"""So many calls at once that some are refused, whether the process took one of them or several together."""


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    few = {"CELLSPARSE_WAITING_PREDICTIONS": str(WAITING), "CELLSPARSE_FAKE_PREDICT_SECONDS": "0.02"}
    with Orchestrator(tmp_path_factory.mktemp("home"), **few) as orchestrator:
        orchestrator.healthy("unet")
        yield orchestrator


@pytest.fixture(scope="module")
def model_id(orchestrator):
    run = orchestrator.train(orchestrator.upload().id, steps=2)
    list(orchestrator.watch(run.id))
    return run.id


def image_of(number):
    return blobs(size=48, seed=number)[0]


def predict_as_clients(address, model_id, first):
    """Let several clients of one process predict at once; return the labels that each got."""
    begin = threading.Barrier(CLIENTS)

    def predict(number):
        with Client(address) as client:
            begin.wait(PATIENCE)
            return number, [client.predict(model_id, image_of(number)) for _ in range(PREDICTIONS)]

    with ThreadPoolExecutor(CLIENTS) as threads:
        return list(threads.map(predict, range(first, first + CLIENTS)))


def test_fifty_clients_are_all_answered_rightly(orchestrator, model_id):
    with Client(orchestrator.address) as client:
        right = [client.predict(model_id, image_of(number)) for number in range(3)]
    assert len({labels.max() for labels in right}) > 1 or all(labels.max() for labels in right)
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as processes:
        jobs = [
            processes.submit(predict_as_clients, orchestrator.address, model_id, CLIENTS * number)
            for number in range(PROCESSES)
        ]
        found = dict(each for job in jobs for each in job.result(LONG_PATIENCE))
    assert sorted(found) == list(range(PROCESSES * CLIENTS))
    for number, answers in found.items():
        assert len(answers) == PREDICTIONS
        assert all(np.array_equal(labels, answers[0]) for labels in answers)
        if number < len(right):
            np.testing.assert_array_equal(answers[0], right[number])


def test_a_prediction_whose_client_goes_frees_its_place(orchestrator, model_id):
    endless = trainer_pb2.PredictRequest(model_id=model_id, image=encode_tiff(np.zeros((77, 40), np.uint8)))
    left = [orchestrator.runs.Predict.future(endless, timeout=PATIENCE) for _ in range(3)]
    with Client(orchestrator.address) as client, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.predict, model_id, image_of(1))
        for each in left:
            each.cancel()
        # Ten minutes before the endless ones are done.
        assert waiting.result(PATIENCE).shape == (48, 48)


def test_a_full_queue_says_when_to_come_back(orchestrator, model_id):
    endless = trainer_pb2.PredictRequest(model_id=model_id, image=encode_tiff(np.zeros((77, 40), np.uint8)))
    calls = [orchestrator.runs.Predict.future(endless, timeout=PATIENCE) for _ in range(TOO_MANY)]
    # Some are done and four wait; the rest is refused while these are there.
    refused = []
    for call in calls:
        call.add_done_callback(lambda done: refused.append(from_rpc_error(done.exception())))
    until(lambda: len(refused) >= 2)
    assert all(isinstance(error, Busy) and error.retry_seconds >= 0.5 for error in refused[:2])
    assert "in line, and 4 may wait at once" in refused[0].message
    for call in calls:
        call.cancel()


def test_predictions_with_checkpoints_wait_in_the_same_line(orchestrator, model_id):
    """They once waited for a lock, each with a thread of the server."""
    with open_channel(orchestrator.service("unet").address) as channel:
        trainer = trainer_pb2_grpc.TrainerServiceStub(channel)
        ask = trainer_pb2.PredictRequest(model_id=model_id, checkpoint=True, image=encode_tiff(image_of(1)))
        assert trainer.Predict(ask, timeout=PATIENCE).step > 0
        ask.image = encode_tiff(np.zeros((77, 40), np.uint8))
        calls = [trainer.Predict.future(ask, timeout=PATIENCE) for _ in range(TOO_MANY)]
        refused = []
        for call in calls:
            call.add_done_callback(lambda done: refused.append(from_rpc_error(done.exception())))
        until(lambda: len(refused) >= 2)
        assert all(isinstance(error, Busy) for error in refused[:2])
        for call in calls:
            call.cancel()


def is_refused(call):
    error = call.exception()
    return error is not None and isinstance(from_rpc_error(error), Busy)


def test_status_and_cancel_are_answered_while_predictions_hold_all_threads(tmp_path):
    with Orchestrator(tmp_path / "home", CELLSPARSE_WORKERS="4") as orchestrator:
        model = orchestrator.train(orchestrator.upload().id, steps=2)
        list(orchestrator.watch(model.id))
        endless = trainer_pb2.PredictRequest(model_id=model.id, image=encode_tiff(np.zeros((77, 40), np.uint8)))
        # One connection may hold three of the four.
        with open_channel(orchestrator.address, own_connection=True) as channel:
            other = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
            stubs = (*[orchestrator.runs] * 3, other)
            calls = [stub.Predict.future(endless) for stub in stubs]
            asked = orchestrator_pb2.GetRunRequest(run_id=model.id)

            def all_threads_are_held():
                """A question that comes before a prediction may take its thread; that one is sent again."""
                for number, stub in enumerate(stubs):
                    if calls[number].done():
                        calls[number] = stub.Predict.future(endless)
                return is_refused(other.GetRun.future(asked, timeout=PATIENCE))

            until(all_threads_are_held)
            assert other.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=PATIENCE).services
            cancel = orchestrator_pb2.CancelRunRequest(run_id=model.id)
            assert other.CancelRun(cancel, timeout=PATIENCE).run.id == model.id
            assert not any(call.done() for call in calls)
            for call in calls:
                call.cancel()
