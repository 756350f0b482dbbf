"""The trainer's service around the fake backend: a real server and real child processes."""

import os
import signal
import time

import grpc
import numpy as np
import psutil
import pytest
from support.limits import PATIENCE, QUICK
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_dataset(open_store(StoreSettings(store_url=f"file://{folder}")))
    return folder


@pytest.fixture(scope="module")
def server(store_folder, tmp_path_factory):
    with ServerProcess(["-m", "support.cellsparse_fake"], store_folder, tmp_path_factory.mktemp("work")) as server:
        yield server


@pytest.fixture
def stub(server):
    with open_channel(server.address) as channel:
        yield trainer_pb2_grpc.TrainerServiceStub(channel)


def request(run_id, attempt=1, **settings):
    return trainer_pb2.StartTrainingRequest(
        run_id=run_id,
        attempt=attempt,
        dataset_id="ds-tiny",
        settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **settings),
    )


def watch(stub, run_id, attempt=1, after=0):
    asked = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=attempt, after_sequence=after)
    return [answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE)]


def refused(call, *args):
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=PATIENCE)
    return from_rpc_error(caught.value)


def test_a_run_from_start_to_prediction(stub, store_folder):
    assert stub.StartTraining(request("run-a"), timeout=PATIENCE).started
    assert not stub.StartTraining(request("run-a"), timeout=PATIENCE).started
    events = watch(stub, "run-a")
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].state == common_pb2.RUN_STATE_STARTING
    assert events[-1].state == common_pb2.RUN_STATE_SUCCEEDED
    assert events[-1].step == events[-1].total_steps == 20
    assert "score" in events[-1].validation
    assert any("loss" in event.losses for event in events)
    assert any(event.log_lines for event in events)
    assert events[-1].peak_memory_mib > 1
    assert watch(stub, "run-a", after=len(events) - 1) == events[-1:]

    image, dense = blobs(size=80, seed=9)
    answer = stub.Predict(trainer_pb2.PredictRequest(model_id="run-a", image=encode_tiff(image)), timeout=PATIENCE)
    label = decode_image(answer.label, max_pixels=2**20).array
    assert label.shape == dense.shape
    assert label.dtype == np.int32
    assert answer.cells == 4

    asked = trainer_pb2.EvaluateRequest(model_id="run-a", dataset_id="ds-tiny", split=common_pb2.SPLIT_TEST)
    answers = list(stub.Evaluate(asked, timeout=PATIENCE))
    assert [(answer.items_done, answer.items_total) for answer in answers] == [(0, 1), (1, 1), (1, 1)]
    report = answers[-1].report
    assert [round(score.iou, 2) for score in report.scores][:2] == [0.5, 0.55]
    assert report.scores[0].f1 == 1
    assert not report.sparse
    stored = sorted(str(path.relative_to(store_folder)) for path in store_folder.rglob("*") if path.is_file())
    assert "runs/run-a/model/model.json" in stored
    assert "runs/run-a/model/sub/threshold.json" in stored
    assert "runs/run-a/attempts/1/events.jsonl" in stored


def test_the_same_attempt_with_other_settings_is_refused(stub):
    stub.StartTraining(request("run-b"), timeout=PATIENCE)
    error = refused(stub.StartTraining, request("run-b", steps=3))
    assert error.status == grpc.StatusCode.ALREADY_EXISTS
    watch(stub, "run-b")


def test_an_orchestrator_that_took_over_asks_for_the_same_and_an_earlier_one_starts_nothing(stub):
    asked = [request("run-lease") for _ in range(3)]
    for fence, each in enumerate(asked):
        each.fence = fence
    assert stub.StartTraining(asked[1], timeout=PATIENCE).started
    assert not stub.StartTraining(asked[2], timeout=PATIENCE).started
    assert not stub.StartTraining(asked[0], timeout=PATIENCE).started
    later = request("run-lease")
    later.attempt, later.fence = 2, 0
    error = refused(stub.StartTraining, later)
    assert error.status == grpc.StatusCode.FAILED_PRECONDITION
    assert "Another orchestrator has taken over run run-lease" in error.message
    watch(stub, "run-lease")


@pytest.mark.parametrize(
    ("learning_rate", "reason", "words"),
    [
        (0.5, common_pb2.FAILURE_REASON_INTERNAL, "the fake broke"),
        (0.6, common_pb2.FAILURE_REASON_USER_ERROR, "step 11"),
        (0.7, common_pb2.FAILURE_REASON_OUT_OF_MEMORY, "batch 2 and crop 32"),
        (0.8, common_pb2.FAILURE_REASON_LOST, "signal 9"),
    ],
)
def test_a_failure_has_a_reason_and_a_sentence(stub, learning_rate, reason, words):
    run_id = f"run-fail-{int(learning_rate * 10)}"
    stub.StartTraining(request(run_id, learning_rate=learning_rate), timeout=PATIENCE)
    last = watch(stub, run_id)[-1]
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, reason)
    assert words in last.message


def test_a_number_format_that_a_cpu_lacks_is_said_before_any_image_is_read(stub, store_folder):
    store = open_store(StoreSettings(store_url=f"file://{store_folder}"))
    for item in write_dataset(store, "ds-gone", size=40).items:
        store.delete(keys.blob(item.image_sha256))
    asked = request("run-bf16", precision=trainer_pb2.PRECISION_BFLOAT16)
    asked.dataset_id = "ds-gone"
    stub.StartTraining(asked, timeout=PATIENCE)
    last = watch(stub, "run-bf16")[-1]
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_USER_ERROR)
    assert "precision is BFLOAT16" in last.message


def test_a_killed_attempt_is_resumed_by_the_next(stub):
    stub.StartTraining(request("run-k", learning_rate=0.8), timeout=PATIENCE)
    assert watch(stub, "run-k")[-1].reason == common_pb2.FAILURE_REASON_LOST
    stub.StartTraining(request("run-k", attempt=2), timeout=PATIENCE)
    events = watch(stub, "run-k", attempt=2)
    assert events[-1].state == common_pb2.RUN_STATE_SUCCEEDED
    assert min(event.step for event in events if event.step) > 5


def test_stop_ends_the_process_and_leaves_a_checkpoint(stub, store_folder):
    stub.StartTraining(request("run-s", learning_rate=0.9, steps=5000), timeout=PATIENCE)
    stream = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="run-s", attempt=1), timeout=PATIENCE)
    next(answer for answer in stream if answer.event.step > 5)
    asked = trainer_pb2.StopTrainingRequest(run_id="run-s", attempt=1)
    assert stub.StopTraining(asked, timeout=PATIENCE).state == common_pb2.RUN_STATE_CANCELLED
    assert stub.StopTraining(asked, timeout=PATIENCE).state == common_pb2.RUN_STATE_CANCELLED
    assert list(stream)[-1].event.state == common_pb2.RUN_STATE_CANCELLED
    assert list(stub.Describe(trainer_pb2.DescribeRequest(), timeout=PATIENCE).active) == []
    assert (store_folder / "runs/run-s/checkpoints/LATEST").is_file()


def test_a_later_attempt_ends_the_earlier_one(stub):
    stub.StartTraining(request("run-l", learning_rate=0.9, steps=5000), timeout=PATIENCE)
    stub.StartTraining(request("run-l", attempt=2), timeout=PATIENCE)
    first = watch(stub, "run-l")[-1]
    assert first.reason == common_pb2.FAILURE_REASON_LOST
    assert watch(stub, "run-l", attempt=2)[-1].state == common_pb2.RUN_STATE_SUCCEEDED


def test_what_cannot_be_started(stub):
    other = trainer_pb2.TrainingSettings(cellpose=trainer_pb2.CellposeSettings())
    wrong = trainer_pb2.StartTrainingRequest(run_id="run-x", attempt=1, dataset_id="ds-tiny", settings=other)
    error = refused(stub.StartTraining, wrong)
    assert error.status == grpc.StatusCode.INVALID_ARGUMENT
    assert "cellpose" in error.message
    gone = request("run-x")
    gone.dataset_id = "ds-none"
    error = refused(stub.StartTraining, gone)
    assert error.status == grpc.StatusCode.NOT_FOUND
    assert "ds-none" in error.message
    error = refused(stub.StartTraining, request("../x"))
    assert error.status == grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_not_there(stub):
    asked = trainer_pb2.WatchTrainingRequest(run_id="run-none", attempt=1)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.WatchTraining(asked, timeout=PATIENCE))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    error = refused(stub.Predict, trainer_pb2.PredictRequest(model_id="run-none", image=b"x"))
    assert error.status == grpc.StatusCode.NOT_FOUND
    assert "run-none" in error.message


def test_a_bad_image_is_refused(stub):
    stub.StartTraining(request("run-p"), timeout=PATIENCE)
    watch(stub, "run-p")
    five = encode_tiff(np.zeros((32, 32, 3), np.uint8))[:200]
    error = refused(stub.Predict, trainer_pb2.PredictRequest(model_id="run-p", image=five))
    assert error.status == grpc.StatusCode.INVALID_ARGUMENT


def test_a_killed_server_takes_its_training_process_along(store_folder, tmp_path):
    with ServerProcess(["-m", "support.cellsparse_fake"], store_folder, tmp_path) as server:
        with open_channel(server.address) as channel:
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            stub.StartTraining(request("run-d", learning_rate=0.9, steps=5000), timeout=PATIENCE)
            stream = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="run-d", attempt=1), timeout=PATIENCE)
            next(answer for answer in stream if answer.event.step > 5)
            children = psutil.Process(server.pid).children(recursive=True)
            assert children
            start = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - start < QUICK
        assert psutil.wait_procs(children, timeout=QUICK)[1] == []
    again = ServerProcess(["-m", "support.cellsparse_fake"], store_folder, tmp_path)
    with again as server, open_channel(server.address) as channel:
        last = watch(trainer_pb2_grpc.TrainerServiceStub(channel), "run-d")[-1]
    assert last.reason == common_pb2.FAILURE_REASON_LOST
    assert "restarted" in last.message


def test_sigterm_leaves_a_checkpoint_and_exits_with_0(store_folder, tmp_path):
    with ServerProcess(["-m", "support.cellsparse_fake"], store_folder, tmp_path) as server:
        with open_channel(server.address) as channel:
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            stub.StartTraining(request("run-t", learning_rate=0.9, steps=5000), timeout=PATIENCE)
            stream = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="run-t", attempt=1), timeout=PATIENCE)
            next(answer for answer in stream if answer.event.step > 5)
            os.kill(server.pid, signal.SIGTERM)
            last = list(stream)[-1].event
        assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_EVICTED)
        assert server.wait(PATIENCE) == 0
    assert (store_folder / "runs/run-t/checkpoints/LATEST").is_file()
