import dataclasses
import hashlib
import json
import time

import numpy as np
import pytest
from support.cellsparse_fake import backend
from support.cellsparse_fake.config import resolve
from support.tiny_dataset import blobs, sparse

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import StorageError
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.checkpoints import BEST, LATEST, Checkpoints
from cellsparse_trainer.training.scoring import validation_scores


@pytest.fixture
def store(tmp_path):
    return open_store(StoreSettings(store_url=f"file://{tmp_path}/store"))


def run(store, folder, *, steps=20, stop=lambda: False, samples=None, settle=False, seconds=None, **given):
    """With `settle` every checkpoint is in the store before the next step; else some may be left out."""
    settings = trainer_pb2.TrainingSettings(steps=steps, **given)
    config = resolve(settings, 1)
    training = backend.create(config, [], "cpu")
    image, label = blobs()
    samples = samples or [Sample(name="a", image=(image / 255).astype("float32"), label=sparse(label))]
    reports = []
    checkpoints = Checkpoints(store, "run-1", folder)
    setup = loop.Setup(
        training=training,
        plan=config.plan,
        items=1,
        validation=samples,
        checkpoints=checkpoints,
        no_step_after=None if seconds is None else time.monotonic() + seconds,
    )

    def report(progress):
        reports.append(progress)
        if settle:
            checkpoints.wait()

    outcome = loop.run(setup, report, stop)
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


def test_seconds_without_a_checkpoint_bring_one_between_two(store, tmp_path):
    settings = {"checkpoint_every_steps": 1000, "checkpoint_every_seconds": 0.3, "learning_rate": 0.9}
    _, _, reports = run(store, tmp_path / "a", validate_every_steps=1000, **settings)
    saved = [report.checkpoint_step for report in reports if report.checkpoint_step]
    assert saved[-1] == 20
    assert 2 <= len(saved) <= 5  # 20 steps of 0.05 s, on a busy machine longer ones
    assert saved != [5, 10, 15, 20]


FLAT = {"validate_every_steps": 2, "learning_rate": 0.4}  # the fake's scores do not rise then


def test_a_training_whose_scores_stay_ends_early_with_the_best_weights(store, tmp_path):
    _, outcome, _ = run(store, tmp_path / "a", patience=3, **FLAT)
    assert (outcome.finished, outcome.steps) == (True, 8)
    assert outcome.step == 8  # ties go to the later weights
    other = open_store(StoreSettings(store_url=f"file://{tmp_path}/other"))
    _, outcome, _ = run(other, tmp_path / "b", patience=0, **FLAT)
    assert outcome.steps == 20


@pytest.mark.parametrize("stopped_at", [1, 3, 4, 5, 6, 7])
def test_early_stopping_counts_on_after_a_break(store, tmp_path, stopped_at):
    calls = iter(range(1, 100))
    _, outcome, _ = run(store, tmp_path / "a", patience=3, stop=lambda: next(calls) == stopped_at, **FLAT)
    assert (outcome.finished, outcome.steps) == (False, stopped_at)
    _, outcome, _ = run(store, tmp_path / "b", patience=3, **FLAT)
    assert outcome.steps == 8  # a stop skips the validation of its own step, and the next attempt makes up for it
    _, again, reports = run(store, tmp_path / "c", patience=3, **FLAT)
    assert again.steps == outcome.steps
    assert reports == []


@pytest.mark.parametrize("stopped_at", [7, 14])
def test_a_stop_where_a_validation_is_due_does_not_cost_the_best_weights(store, tmp_path, monkeypatch, stopped_at):
    """Steps 7, 14 and 20 are validated; the best are those that the run is stopped at."""
    given = {7: 0.3, 14: 0.3, 20: 0.2, stopped_at: 0.9}
    steps = {sum(float(backend.np.random.default_rng([0, n]).random()) for n in range(at)): at for at in given}
    monkeypatch.setattr(loop, "validation_scores", lambda model, _: {"score": given[steps[model.threshold * 20]]})
    monkeypatch.setattr(
        backend, "FakeModel", lambda threshold: dataclasses.make_dataclass("M", ["threshold"])(threshold)
    )
    calls = iter(range(1, 100))
    _, outcome, _ = run(store, tmp_path / "a", stop=lambda: next(calls) == stopped_at)
    assert (outcome.finished, outcome.step) == (False, stopped_at)
    _, outcome, reports = run(store, tmp_path / "b")
    assert (outcome.step, outcome.validation) == (stopped_at, {"score": 0.9})
    assert reports[0].step == stopped_at
    assert reports[0].validation == {"score": 0.9}


def test_when_time_is_over_the_step_is_validated_and_the_best_weights_win(store, tmp_path):
    _, outcome, reports = run(store, tmp_path / "a", seconds=0.12, learning_rate=0.9)  # steps of 0.05 s
    assert outcome.finished
    assert outcome.late
    assert 1 <= outcome.steps <= 3
    assert reports[-1].step == outcome.steps
    assert outcome.validation == reports[-1].validation
    assert outcome.spent.steps >= 0.05 * outcome.steps
    assert outcome.spent.validations > 0
    other = open_store(StoreSettings(store_url=f"file://{tmp_path}/other"))
    _, whole, _ = run(other, tmp_path / "b", seconds=600)
    assert (whole.steps, whole.late) == (20, False)


def test_time_that_is_over_before_the_first_step_still_gives_one(store, tmp_path):
    _, outcome, _ = run(store, tmp_path / "a", seconds=-1)
    assert (outcome.steps, outcome.late, outcome.finished) == (1, True, True)


def test_scores_of_another_measure_are_not_compared(store, tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(loop, "MEASURE", "")
        earlier.setattr(loop, "validation_scores", lambda *_: {"score": 2.0})
        calls = iter(range(100))
        run(store, tmp_path / "a", stop=lambda: next(calls) == 8)
    _, outcome, _ = run(store, tmp_path / "b")
    assert outcome.step > 9
    assert outcome.validation["score"] <= 1
    assert Checkpoints(store, "run-1", tmp_path / "c").pointer(BEST).best <= 1


def test_scores_of_zero_are_no_reason_to_end():
    record = loop.Record(cells=10**6)
    assert all(record.add(0.0) for _ in range(5))
    assert not record.exhausted(1)
    assert record.add(0.3)
    assert not record.add(0.2)
    assert record.add(0.3)
    assert (record.best, record.stale) == (0.3, 2)
    assert record.exhausted(2)
    assert not record.exhausted(0)


def test_the_latest_weights_within_a_standard_error_of_the_highest_score_are_the_best():
    """With 16 cells and a score of 0.8 the standard error is 0.1; it never grows from step to step."""
    record = loop.Record(cells=16)
    assert [record.add(score) for score in (0.5, 0.8, 0.72, 0.69, 0.71, 0.69)] == [True, True, True, False, True, False]
    assert (record.best, record.stale) == (0.8, 4)
    perfect = loop.Record(cells=1)
    assert [perfect.add(score) for score in (1.0, 0.99, 1.0)] == [True, False, True]


def test_weights_that_score_below_a_given_model_are_never_the_best():
    record = loop.Record(cells=4, floor=0.8)
    assert [record.add(score) for score in (0.8, 0.79, 0.9, 0.81, 0.79)] == [True, False, True, True, False]


class OutlinedModel(backend.FakeModel):
    """Notes what its outlines are fitted to."""

    def fit_outlines(self, samples):
        self.seen = samples


def test_thresholds_are_tuned_on_validation_and_outlines_on_training_items_too(tmp_path, monkeypatch):
    """What is looked at are windows around labelled cells, however many and large the items are."""
    image, label = blobs()
    many = [Sample(name=str(n), image=np.zeros((400, 400), "float32"), label=grid_of_cells()) for n in range(100)]
    small = [Sample(name="small", image=(image / 255).astype("float32"), label=sparse(label))]
    plan = resolve(trainer_pb2.TrainingSettings(), 1).plan
    model = OutlinedModel(0.1)
    loop.tune(model, plan, small, many)
    model.export(tmp_path)
    assert json.loads((tmp_path / "sub" / "threshold.json").read_text()) == 0.5
    assert model.seen[0] == small[0]
    assert len({one.name for one in model.seen[1:]}) > 30
    assert sum(one.label.size for one in model.seen[1:]) <= loop.FITTING_PIXELS < 100 * 400 * 400
    assert all((one.label > 0).any() for one in model.seen)
    loop.tune(model, plan, small, small)
    assert model.seen == small
    loop.tune(backend.FakeModel(0.1), plan, small, many)


def grid_of_cells():
    label = np.full((400, 400), -1, "int32")
    for n in range(16):
        y, x = 20 + 100 * (n // 4), 20 + 100 * (n % 4)
        label[y : y + 12, x : x + 12] = n + 1
    return label


class DyingStore:
    """A store whose process is dead after so many writes and deletions: what it did stays, nothing else happens."""

    def __init__(self, store, left):
        self._store = store
        self.left = left

    def _change(self):
        self.left -= 1
        if self.left < 0:
            raise StorageError("The process is dead.")

    def put(self, key, data):
        self._change()
        self._store.put(key, data)

    def delete(self, key):
        self._change()
        self._store.delete(key)

    def __getattr__(self, name):
        return getattr(self._store, name)


def assert_whole(store, folder):
    """Every pointer there is points at whole files."""
    checkpoints = Checkpoints(store, "run-1", folder)
    for name in (LATEST, BEST):
        pointer = checkpoints.pointer(name)
        for file, digest in pointer.files.items() if pointer else ():
            assert hashlib.sha256(store.get(keys.checkpoint("run-1", pointer.step, file))).hexdigest() == digest


def test_killed_after_any_write_and_resumed_equals_uninterrupted(store, tmp_path):
    counted = DyingStore(store, 10**6)
    whole, outcome, _ = run(counted, tmp_path / "whole", settle=True)
    changes = 10**6 - counted.left
    assert changes > 20
    for left in range(changes):
        place = tmp_path / str(left)
        place.mkdir()
        other = open_store(StoreSettings(store_url=f"file://{place}/store"))
        with pytest.raises(StorageError, match="dead"):
            run(DyingStore(other, left), place / "a", settle=True)
        assert_whole(other, place / "look")
        resumed, again, _ = run(other, place / "b")
        assert_whole(other, place / "look")
        assert (resumed.sum, again) == (whole.sum, outcome)


def test_the_best_checkpoint_is_what_is_published(store, tmp_path, monkeypatch):
    """Validations give 0.2, 0.9 and 0.4: the run ends with the weights of the second one."""
    scores = iter([0.2, 0.9, 0.4, 0.9])
    monkeypatch.setattr(loop, "validation_scores", lambda *_: {"score": next(scores)})
    training, outcome, reports = run(store, tmp_path / "a")
    assert (outcome.step, outcome.validation) == (14, {"score": 0.9})
    expected = sum(float(backend.np.random.default_rng([0, step]).random()) for step in range(14))
    assert training.sum == pytest.approx(expected)
    assert [report.validation["score"] for report in reports if report.validation] == [0.2, 0.9, 0.4]
    assert Checkpoints(store, "run-1", tmp_path / "b").pointer(BEST).step == 14


def test_the_validation_scores_are_those_of_the_validation_items(store, tmp_path):
    image, label = blobs()
    given = Sample(name="v", image=(image / 255).astype("float32"), label=sparse(label))
    other = dataclasses.replace(given, image=given.image * 0)
    _, outcome, reports = run(store, tmp_path / "a", samples=[given])
    assert outcome.validation == validation_scores(backend.FakeModel(outcome_sum(outcome) / 20), [given])
    nothing = open_store(StoreSettings(store_url=f"file://{tmp_path}/nothing"))
    _, blank, _ = run(nothing, tmp_path / "b", samples=[other])
    assert outcome.validation["f1"] > blank.validation["f1"] == 0
    for report in reports:
        assert report.losses.keys() <= {"loss"}
        assert "loss" not in report.validation


def outcome_sum(outcome):
    return sum(float(backend.np.random.default_rng([0, step]).random()) for step in range(outcome.step))


def test_fewer_steps_than_are_done_already_end_at_once(store, tmp_path):
    whole, _, _ = run(store, tmp_path / "a", steps=20)
    again, outcome, reports = run(store, tmp_path / "b", steps=12)
    assert outcome.finished
    assert reports == []
    assert again.sum == whole.sum
