"""Imports through a real orchestrator, against the backend without a framework: what is kept, and what is not."""

import os
import signal
import sqlite3

import grpc
import numpy as np
import psutil
import pytest
from support.limits import PATIENCE
from support.model_imports import import_messages
from support.orchestrator import Orchestrator, refused, snapshot, until

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

WORKER = "cellsparse_trainer.training.worker"


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with Orchestrator(home, CELLSPARSE_MAX_MODEL_MIB="2") as running:
        running.healthy("unet")
        yield running


@pytest.fixture(scope="module")
def dataset(orchestrator):
    return orchestrator.upload()


def imported(orchestrator, content=b"0.25", **options):
    return orchestrator.runs.ImportModel(import_messages(content, "unet", **options), timeout=PATIENCE).model


def trained(orchestrator, dataset, **settings):
    run = orchestrator.train(dataset.id, **settings)
    until(lambda: orchestrator.run(run.id).HasField("ended_at"))
    return orchestrator.run(run.id)


def test_an_imported_model_is_a_model_like_others(orchestrator, dataset):
    made = imported(orchestrator, name="mine", upper_percentile=99)
    assert (made.name, made.backend, made.dataset_id, made.step) == ("mine", "unet", "", 0)
    get = orchestrator_pb2.GetModelRequest(model_id=made.id)
    assert orchestrator.runs.GetModel(get, timeout=PATIENCE).model == made
    listed = orchestrator.runs.ListModels(orchestrator_pb2.ListModelsRequest(backend="unet"), timeout=PATIENCE).models
    assert made in listed
    image = encode_tiff(np.zeros((40, 40), np.uint8))
    asked = trainer_pb2.PredictRequest(model_id=made.id, image=image)
    assert orchestrator.runs.Predict(asked, timeout=PATIENCE).cells == 0
    asked = trainer_pb2.EvaluateRequest(model_id=made.id, dataset_id=dataset.id)
    assert len(list(orchestrator.runs.Evaluate(asked, timeout=PATIENCE))[-1].report.scores) == 9
    asked = trainer_pb2.ExportRequest(model_id=made.id, format=trainer_pb2.EXPORT_FORMAT_NATIVE)
    assert next(orchestrator.runs.Export(asked, timeout=PATIENCE)).header.file_name == f"{made.id}.zip"
    assert not list((orchestrator.store / "uploads").glob("*"))


@pytest.mark.parametrize(
    ("content", "options", "status", "said"),
    [
        (b"nonsense", {}, grpc.StatusCode.INVALID_ARGUMENT, "no unet model"),
        (b"7", {}, grpc.StatusCode.INVALID_ARGUMENT, "0 to 1"),
        (b"PK\x03\x04 broken", {}, grpc.StatusCode.INVALID_ARGUMENT, "no unet model"),
        (b"", {"size": 1}, grpc.StatusCode.INVALID_ARGUMENT, "0 came"),
        (b"0.25", {"size": 9}, grpc.StatusCode.INVALID_ARGUMENT, "9 bytes"),
        (b"0.25", {"name": "../x"}, grpc.StatusCode.INVALID_ARGUMENT, "../x"),
        (b"0.25", {"lower_percentile": 50, "upper_percentile": 50}, grpc.StatusCode.INVALID_ARGUMENT, "50"),
        (b"0" * (2**21 + 1), {}, grpc.StatusCode.RESOURCE_EXHAUSTED, "2 MiB"),
        (b"kill", {}, grpc.StatusCode.UNAVAILABLE, "died"),
    ],
    ids=["nonsense", "value", "zip", "empty", "short", "name", "percentiles", "huge", "killed"],
)
def test_what_is_refused_leaves_nothing(orchestrator, content, options, status, said):
    imported(orchestrator)  # sweeps what a slow or killed one has left, and starts the inference process
    before = snapshot(orchestrator)
    error = refused(orchestrator.runs.ImportModel, import_messages(content, "unet", **options))
    assert error.status == status
    assert said in error.message
    files, rows = snapshot(orchestrator)
    left = {path: size for path, size in files.items() if path not in before[0] and size}
    assert (left, rows) == ({}, before[1])


def test_an_import_that_takes_too_long_leaves_nothing(orchestrator):
    imported(orchestrator)  # the inference process is up
    before = snapshot(orchestrator)
    with pytest.raises(grpc.RpcError) as caught:
        orchestrator.runs.ImportModel(import_messages(b"slow", "unet"), timeout=3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # The orchestrator hears of the deadline in a moment; the next import removes the mark of this one.
    marks = orchestrator.store / "uploads"
    until(lambda: not any(mark.stat().st_size for mark in marks.glob("*")))
    made = imported(orchestrator)
    assert not list(marks.glob("*"))
    files, _ = snapshot(orchestrator)
    assert all(path in before[0] or made.id in path for path in files)


def test_a_stream_that_is_not_an_import(orchestrator):
    header, chunk, end = import_messages(b"0.25", "unet")
    for parts, said in (
        ([chunk, end], "must be its header"),
        ([header, header], "second header"),
        ([header, chunk], "without its end"),
        ([header, chunk, end, chunk], "after its end"),
    ):
        error = refused(orchestrator.runs.ImportModel, iter(parts))
        assert error.status == grpc.StatusCode.INVALID_ARGUMENT
        assert said in error.message
    error = refused(orchestrator.runs.ImportModel, import_messages(b"0.25", "cellpose"))
    assert error.status == grpc.StatusCode.FAILED_PRECONDITION


def test_an_orchestrator_killed_during_an_import_leaves_nothing_that_stays(tmp_path):
    home = tmp_path / "home"
    with Orchestrator(home) as orchestrator:
        orchestrator.healthy("unet")
        call = orchestrator.runs.ImportModel.future(import_messages(b"slow", "unet"), timeout=PATIENCE)
        until(lambda: list((orchestrator.store / "uploads").glob("*")))
        orchestrator.kill()
        with pytest.raises(grpc.RpcError):
            call.result()
    with Orchestrator(home) as orchestrator:
        orchestrator.healthy("unet")
        assert not orchestrator.runs.ListModels(orchestrator_pb2.ListModelsRequest(), timeout=PATIENCE).models
        made = imported(orchestrator)
        assert [path.name for path in (orchestrator.store / "runs").iterdir()] == [made.id]
        assert not list((orchestrator.store / "uploads").glob("*"))


def test_a_run_starts_from_a_model_and_says_whether_it_beats_it(orchestrator, dataset):
    start = imported(orchestrator, b"0.9")
    run = trained(orchestrator, dataset, initial_model=start.id)
    assert run.state == common_pb2.RUN_STATE_SUCCEEDED, run.message
    before, after = run.progress.start_validation["score"], run.progress.validation["score"]
    model = orchestrator.runs.GetModel(orchestrator_pb2.GetModelRequest(model_id=run.id), timeout=PATIENCE).model
    assert (model.initial_model, model.start_validation["score"]) == (start.id, before)
    assert run.message.endswith("better." if after > before else "kept.")
    assert f"{before:.3f}" in run.message
    first = next(event.training for event in orchestrator.watch(run.id) if event.training.validation)
    assert (first.step, first.validation["score"]) == (0, before)


def test_a_start_that_nothing_surpasses_stays(orchestrator, dataset):
    """At 0.5 every cell is found; each step of the fake moves its threshold away."""
    start = imported(orchestrator, b"0.5")
    run = trained(orchestrator, dataset, initial_model=start.id, steps=80)
    assert run.state == common_pb2.RUN_STATE_SUCCEEDED, run.message
    model = orchestrator.runs.GetModel(orchestrator_pb2.GetModelRequest(model_id=run.id), timeout=PATIENCE).model
    assert model.step == run.progress.model_step == 0
    assert model.validation == model.start_validation
    assert "the start's weights are kept" in run.message


def test_a_killed_run_keeps_the_start_it_began_with(orchestrator, dataset):
    start = imported(orchestrator, b"0.9")
    run = orchestrator.train(dataset.id, initial_model=start.id, learning_rate=0.9, steps=60)
    next(event for event in orchestrator.watch(run.id) if event.training.checkpoint_step > 0)
    trainer = psutil.Process(orchestrator.service("unet").pid)
    worker = next(child for child in trainer.children() if WORKER in child.cmdline())
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: orchestrator.run(run.id).HasField("ended_at"))
    ended = orchestrator.run(run.id)
    assert (ended.state, ended.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2)
    with sqlite3.connect(orchestrator.home / "cellsparse.db") as connection:
        assert connection.execute("SELECT initial_model FROM models WHERE id = ?", [run.id]).fetchone() == (start.id,)
    scored = [event.training for event in orchestrator.watch(run.id) if event.training.validation]
    assert [event.step for event in scored].count(0) == 1
    assert scored[-1].start_validation["score"] == scored[0].validation["score"]


def test_starts_that_cannot_be(orchestrator, dataset):
    def create(backend, model):
        settings = trainer_pb2.TrainingSettings(initial_model=model)
        getattr(settings, backend).SetInParent()
        return orchestrator_pb2.CreateRunRequest(dataset_id=dataset.id, settings=settings)

    error = refused(orchestrator.runs.CreateRun, create("unet", "model-none"))
    assert error.status == grpc.StatusCode.NOT_FOUND
    assert "model-none" in error.message
    made = imported(orchestrator)
    run = trained(orchestrator, dataset, initial_model=made.id, steps=3)
    again = trained(orchestrator, dataset, initial_model=run.id, steps=3)
    assert again.state == common_pb2.RUN_STATE_SUCCEEDED, again.message
    request = create("unet", made.id)
    request.settings.unet.centre_threshold = 0.75
    wrong = orchestrator.runs.CreateRun(request, timeout=PATIENCE).run
    until(lambda: orchestrator.run(wrong.id).HasField("ended_at"))
    ended = orchestrator.run(wrong.id)
    assert ended.reason == common_pb2.FAILURE_REASON_USER_ERROR
    assert "0.75" in ended.message
