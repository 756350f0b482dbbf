"""Runs through a real orchestrator, sparsifier and trainer server (with a backend that needs no framework)."""

import grpc
import pytest
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, refused, state_names, until
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.rpc import health
from cellsparse_common.rpc.admission import Admission
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import (
    common_pb2,
    dataset_pb2,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    sparsifier_pb2,
    trainer_pb2,
)

SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step; none ends early


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home")) as started:
        started.healthy("unet")
        started.healthy("sparsifier")
        yield started


@pytest.fixture(scope="module")
def dataset(orchestrator):
    return orchestrator.upload()


@pytest.fixture(scope="module")
def model(orchestrator, dataset):
    run = orchestrator.train(dataset.id)
    assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"
    return run.id


def test_a_dataset_is_what_was_uploaded(orchestrator, dataset):
    assert (dataset.items, dataset.train_items, dataset.val_items, dataset.test_items) == (3, 1, 1, 1)
    assert dataset.cells == 12
    listed = orchestrator.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=PATIENCE).datasets
    assert dataset in listed
    names, token = [], ""
    while True:
        request = dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset.id, page={"page_size": 2, "page_token": token})
        answer = orchestrator.datasets.ListDatasetItems(request, timeout=PATIENCE)
        names += [item.name for item in answer.items]
        token = answer.next_page_token
        if not token:
            break
    assert names == ["item0", "item1", "item2"]
    request = dataset_pb2.GetDatasetItemRequest(dataset_id=dataset.id, item="item1")
    answer = orchestrator.datasets.GetDatasetItem(request, timeout=PATIENCE)
    image, label = blobs(64, seed=1)
    assert (decode_image(answer.image, max_pixels=2**20).array == image).all()
    assert (decode_image(answer.label, max_pixels=2**20).array == label).all()


def test_a_run_from_queue_to_model(orchestrator, dataset):
    run = orchestrator.train(dataset.id, steps=20, seed=5)
    assert run.name == "unet tiny"
    events = list(orchestrator.watch(run.id))
    assert state_names(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    trained = [event.training.sequence for event in events if event.HasField("training")]
    assert trained == list(range(1, len(trained) + 1))
    half = len(events) // 2
    assert list(orchestrator.watch(run.id, after=half)) == events[half:]
    ended = orchestrator.run(run.id)
    assert ended.attempts == 1
    assert ended.progress.step == 20
    assert ended.ended_at.ToDatetime() >= ended.started_at.ToDatetime() >= ended.created_at.ToDatetime()
    model = orchestrator.runs.GetModel(orchestrator_pb2.GetModelRequest(model_id=run.id), timeout=PATIENCE).model
    assert model.backend == "unet"
    assert model.dataset_id == dataset.id
    assert model.step > 0
    assert "score" in model.validation
    spec = (orchestrator.store / "runs" / run.id / "spec.json").read_text()
    for word in ('"seed": 5', '"numpy"', dataset.id, "label_sha256"):
        assert word in spec


def test_predict_evaluate_and_export_go_to_the_trainer(orchestrator, dataset, model):
    image, _ = blobs(80, seed=9)
    request = trainer_pb2.PredictRequest(model_id=model, image=encode_tiff(image))
    answer = orchestrator.runs.Predict(request, timeout=PATIENCE)
    assert decode_image(answer.label, max_pixels=2**20).array.shape == image.shape
    request = trainer_pb2.EvaluateRequest(model_id=model, dataset_id=dataset.id)
    answers = list(orchestrator.runs.Evaluate(request, timeout=PATIENCE))
    assert len(answers[-1].report.scores) == 9
    assert not answers[0].HasField("report")
    request = trainer_pb2.ExportRequest(model_id=model, format=trainer_pb2.EXPORT_FORMAT_NATIVE)
    first, *rest = orchestrator.runs.Export(request, timeout=PATIENCE)
    assert first.header.size == sum(len(message.chunk) for message in rest) > 2**20
    request = trainer_pb2.ExportRequest(model_id=model, format=trainer_pb2.EXPORT_FORMAT_SAVED_MODEL)
    assert refused(orchestrator.runs.Export, request).status == grpc.StatusCode.INVALID_ARGUMENT


def test_what_does_not_exist_is_not_found(orchestrator, dataset, model):
    runs, datasets = orchestrator.runs, orchestrator.datasets
    image = encode_tiff(blobs()[0])
    calls = [
        (runs.GetRun, orchestrator_pb2.GetRunRequest(run_id="run-x")),
        (runs.WatchRun, orchestrator_pb2.WatchRunRequest(run_id="run-x")),
        (runs.CancelRun, orchestrator_pb2.CancelRunRequest(run_id="run-x")),
        (runs.GetModel, orchestrator_pb2.GetModelRequest(model_id="run-x")),
        (runs.Predict, trainer_pb2.PredictRequest(model_id="run-x", image=image)),
        (runs.Export, trainer_pb2.ExportRequest(model_id="run-x", format=trainer_pb2.EXPORT_FORMAT_NATIVE)),
        (runs.Evaluate, trainer_pb2.EvaluateRequest(model_id="run-x", dataset_id=dataset.id)),
        (runs.Evaluate, trainer_pb2.EvaluateRequest(model_id=model, dataset_id="ds-x")),
        (datasets.GetDataset, dataset_pb2.GetDatasetRequest(dataset_id="ds-x")),
        (datasets.ListDatasetItems, dataset_pb2.ListDatasetItemsRequest(dataset_id="ds-x")),
        (datasets.GetDatasetItem, dataset_pb2.GetDatasetItemRequest(dataset_id=dataset.id, item="x")),
        (datasets.DeleteDataset, dataset_pb2.DeleteDatasetRequest(dataset_id="ds-x")),
    ]
    for call, request in calls:
        error = refused(call, request)
        assert error.status == grpc.StatusCode.NOT_FOUND, request
        assert "'run-x'" in error.message or "'ds-x'" in error.message or "'x'" in error.message


def test_the_same_request_makes_one_run(orchestrator, dataset):
    first = orchestrator.train(dataset.id, request_id="once", steps=3)
    assert orchestrator.train(dataset.id, request_id="once", steps=3).id == first.id
    with pytest.raises(grpc.RpcError) as caught:
        orchestrator.train(dataset.id, request_id="once", steps=4)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert first.id in caught.value.details()


def test_many_runs_are_asked_for_in_one_call(orchestrator, dataset):
    def asked(steps, **fields):
        settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), steps=steps)
        return orchestrator_pb2.CreateRunRequest(dataset_id=dataset.id, settings=settings, **fields)

    request = orchestrator_pb2.CreateRunsRequest(request_id="many", runs=[asked(3), asked(4)])
    made = orchestrator.runs.CreateRuns(request, timeout=PATIENCE).runs
    again = orchestrator.runs.CreateRuns(request, timeout=PATIENCE).runs
    assert [run.id for run in again] == [run.id for run in made]
    for run, steps in zip(made, (3, 4), strict=True):
        assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"
        assert orchestrator.run(run.id).progress.step == steps
    for runs, field in (
        ([], "runs"),
        ([asked(3)] * 101, "runs"),
        ([asked(3), asked(0)], "runs[1].settings.steps"),
        ([asked(3), asked(3, request_id="own")], "runs[1].request_id"),
    ):
        error = refused(orchestrator.runs.CreateRuns, orchestrator_pb2.CreateRunsRequest(runs=runs))
        assert (error.status, error.violations[0][0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    elsewhere = orchestrator_pb2.CreateRunRequest(dataset_id="ds-x", settings=asked(3).settings)
    request = orchestrator_pb2.CreateRunsRequest(runs=[asked(3), elsewhere])
    before = len(orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs)
    assert refused(orchestrator.runs.CreateRuns, request).status == grpc.StatusCode.NOT_FOUND
    assert len(orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs) == before


def test_runs_wait_in_line_and_are_cancelled(orchestrator):
    dataset = orchestrator.upload(name="for cancelling")
    first, second, third = (orchestrator.train(dataset.id, steps=2000, **SLOW) for _ in range(3))
    until(lambda: orchestrator.run(first.id).state == common_pb2.RUN_STATE_RUNNING)
    waiting = orchestrator.run(third.id)
    assert (waiting.queue_position, waiting.message) == (2, "waiting: 2 runs ahead")
    error = refused(orchestrator.datasets.DeleteDataset, dataset_pb2.DeleteDatasetRequest(dataset_id=dataset.id))
    assert error.status == grpc.StatusCode.FAILED_PRECONDITION
    assert first.id in error.message
    request = orchestrator_pb2.ListRunsRequest(states=[common_pb2.RUN_STATE_QUEUED], dataset_id=dataset.id)
    listed = orchestrator.runs.ListRuns(request, timeout=PATIENCE).runs
    assert [run.id for run in listed] == [third.id, second.id]
    for run in (third, second, second):
        cancelled = orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE).run
        assert cancelled.state == common_pb2.RUN_STATE_CANCELLED
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=first.id), timeout=PATIENCE)
    assert state_names(orchestrator.watch(first.id)) == ["QUEUED", "STARTING", "RUNNING", "CANCELLED"]
    again = orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=first.id), timeout=PATIENCE).run
    assert again.state == common_pb2.RUN_STATE_CANCELLED
    orchestrator.datasets.DeleteDataset(dataset_pb2.DeleteDatasetRequest(dataset_id=dataset.id), timeout=PATIENCE)
    gone = refused(orchestrator.datasets.GetDataset, dataset_pb2.GetDatasetRequest(dataset_id=dataset.id))
    assert gone.status == grpc.StatusCode.NOT_FOUND


def test_a_client_with_128_idle_streams_locks_nobody_out(orchestrator, dataset):
    run = orchestrator.train(dataset.id, steps=2000, **SLOW)
    until(lambda: orchestrator.run(run.id).state == common_pb2.RUN_STATE_RUNNING)
    request = orchestrator_pb2.WatchRunRequest(run_id=run.id, after_sequence=2**32)
    with grpc.insecure_channel(orchestrator.address, options=[("grpc.use_local_subchannel_pool", 1)]) as greedy:
        watch = orchestrator_pb2_grpc.OrchestratorServiceStub(greedy).WatchRun
        streams = [watch(request, timeout=PATIENCE) for _ in range(128)]
        share = Admission(OrchestratorSettings.model_fields["workers"].default).share
        until(lambda: sum(stream.done() for stream in streams) == 128 - share)
        assert {stream.code() for stream in streams if stream.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        for _ in range(3):
            assert not health.check(orchestrator.address, seconds=PATIENCE)
            assert orchestrator.service("unet").healthy
        orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
        assert state_names(orchestrator.watch(run.id))[-1] == "CANCELLED"


@pytest.mark.parametrize(
    ("learning_rate", "attempts", "reason"),
    [
        (0.6, 1, common_pb2.FAILURE_REASON_USER_ERROR),
        (0.7, 1, common_pb2.FAILURE_REASON_OUT_OF_MEMORY),
        (0.8, 2, common_pb2.FAILURE_REASON_LOST),
    ],
)
def test_what_is_tried_again_and_what_is_not(orchestrator, dataset, learning_rate, attempts, reason):
    request = orchestrator_pb2.CreateRunRequest(
        dataset_id=dataset.id,
        max_attempts=2,
        settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), learning_rate=learning_rate),
    )
    run = orchestrator.runs.CreateRun(request, timeout=PATIENCE).run
    events = list(orchestrator.watch(run.id))
    ended = orchestrator.run(run.id)
    assert (ended.state, ended.reason, ended.attempts) == (common_pb2.RUN_STATE_FAILED, reason, attempts)
    assert ended.message
    assert events[-1].message == ended.message
    assert ("RETRYING" in state_names(events)) == (attempts > 1)


def test_a_sparse_copy(orchestrator, dataset):
    request = dataset_pb2.CreateSparseDatasetRequest(
        dataset_id=dataset.id,
        settings=sparsifier_pb2.SparsifySettings(
            mode=sparsifier_pb2.SELECTION_MODE_MINMAX, k=1, background=sparsifier_pb2.BACKGROUND_RULE_SHIFTED
        ),
    )
    answers = list(orchestrator.datasets.CreateSparseDataset(request, timeout=PATIENCE))
    made = answers[-1].dataset
    assert (made.name, made.parent_id, made.train_cells) == ("tiny minmax k1 shifted", dataset.id, 2)
    found = orchestrator.datasets.GetDataset(dataset_pb2.GetDatasetRequest(dataset_id=made.id), timeout=PATIENCE)
    assert found.dataset == made
