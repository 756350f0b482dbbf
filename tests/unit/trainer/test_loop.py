import json

import pytest
from support.cellsparse_fake import backend
from support.tiny_dataset import blobs, sparse

from cellsparse_common.settings import StoreSettings
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer import loop
from cellsparse_trainer.checkpoints import LATEST, Checkpoints
from cellsparse_trainer.samples import Sample


@pytest.fixture
def store(tmp_path):
    return open_store(StoreSettings(store_url=f"file://{tmp_path}/store"))


def run(store, folder, *, steps=20, stop=lambda: False, learning_rate=0.1):
    settings = trainer_pb2.TrainingSettings(steps=steps, learning_rate=learning_rate)
    config = backend.resolve(settings, 1)
    training = backend.create(config, [], "cpu")
    image, label = blobs()
    samples = [Sample(name="a", image=(image / 255).astype("float32"), label=sparse(label))]
    reports = []
    checkpoints = Checkpoints(store, "run-1", folder)
    setup = loop.Setup(training=training, plan=config.plan, items=1, validation=samples, checkpoints=checkpoints)
    outcome = loop.run(setup, reports.append, stop)
    return training, outcome, reports


def test_reports_end_at_the_last_step_with_scores(store, tmp_path):
    _, outcome, reports = run(store, tmp_path / "a")
    assert outcome.finished
    assert 0 <= outcome.validation["score"] <= 1
    assert reports[-1].step == 20
    assert reports[-1].epoch == 40
    assert {report.step for report in reports if report.validation} == {7, 14, 20}
    assert {report.checkpoint_step for report in reports if report.checkpoint_step} >= {5, 10, 15, 20}


def test_stopped_and_resumed_equals_uninterrupted(store, tmp_path):
    whole, _, _ = run(store, tmp_path / "a")
    other = open_store(StoreSettings(store_url=f"file://{tmp_path}/other"))
    calls = iter(range(100))
    _, outcome, _ = run(other, tmp_path / "b", stop=lambda: next(calls) == 8)
    assert (outcome.finished, outcome.step) == (False, 9)
    resumed, outcome, reports = run(other, tmp_path / "c")
    assert outcome.finished
    assert min(report.step for report in reports) > 9
    assert resumed.sum == whole.sum


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(store, tmp_path):
    with pytest.raises(FloatingPointError):
        run(store, tmp_path / "a", learning_rate=0.6)
    pointer = Checkpoints(store, "run-1", tmp_path / "b").pointer(LATEST)
    assert pointer.step == 10


def test_the_final_model_is_tuned_and_written(tmp_path):
    loop.finish(backend.FakeModel(0.1), [], tmp_path)
    assert json.loads((tmp_path / "sub" / "threshold.json").read_text()) == 0.5
