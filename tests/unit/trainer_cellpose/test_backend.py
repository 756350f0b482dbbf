import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cellpose.models import CellposeModel as StockModel
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose import backend
from cellsparse_cellpose.config import Config, resolve
from cellsparse_cellpose.network import WEIGHTS_FILE
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.training import STATE_FILE
from cellsparse_trainer.config.schedule import learning_rate


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state(training: backend.CellposeTraining, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir()
    training.save(folder)
    saved = torch.load(folder / STATE_FILE, weights_only=True)
    return saved["network"] | {f"average of {name}": value for name, value in saved["average"].items()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_interrupted_and_resumed_is_bit_equal_to_uninterrupted(tmp_path: Path, optimizer: str) -> None:
    config, samples = small_config(optimizer=optimizer), [disc_sample()]
    whole = backend.create(config, samples, "cpu")
    losses = [whole.train_step(step) for step in range(6)]
    part = backend.create(config, samples, "cpu")
    for step in range(3):
        part.train_step(step)
    (tmp_path / "half").mkdir()
    part.save(tmp_path / "half")
    rest = backend.create(config, samples, "cpu")
    rest.load(tmp_path / "half")
    assert [rest.train_step(step) for step in range(3, 6)] == losses[3:]
    first, second = state(whole, tmp_path / "first"), state(rest, tmp_path / "second")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_depend_on_the_seed_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    config, samples = small_config(), [disc_sample()]
    before = torch.random.get_rng_state()
    first = state(backend.create(config, samples, "cpu"), tmp_path / "first")
    assert torch.equal(torch.random.get_rng_state(), before)
    other = dataclasses.replace(config, plan=dataclasses.replace(config.plan, seed=6))
    second = state(backend.create(other, samples, "cpu"), tmp_path / "second")
    assert not torch.equal(first["output.2.weight"], second["output.2.weight"])


def test_a_loss_that_is_not_finite_names_the_step() -> None:
    sample = disc_sample()
    broken = dataclasses.replace(sample, image=np.full_like(sample.image, np.nan))
    with pytest.raises(FloatingPointError, match="step 5"):
        backend.create(small_config(), [broken], "cpu").train_step(4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_asked_for_and_missing_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.create(small_config(), [disc_sample()], "cuda")


def in_format(precision: str) -> Config:
    config = small_config()
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, precision=precision))


def test_bfloat16_is_refused_on_a_cpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: False)
    with pytest.raises(InvalidArgument, match="precision is BFLOAT16, but this CPU does not compute in it"):
        backend.create(in_format("bfloat16"), [disc_sample()], "cpu")
    backend.create(in_format("auto"), [disc_sample()], "cpu").train_step(0)


def test_a_training_in_bfloat16_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: True)  # else it is emulated, slowly
    losses = {}
    for precision in ("bfloat16", "float32"):
        training = backend.create(in_format(precision), [disc_sample()], "cpu")
        losses[precision] = [training.train_step(step)["loss"] for step in range(6)]
        assert {weight.dtype for weight in training.network.parameters()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1)


def test_the_papers_learning_rate_rises_over_ten_epochs_and_stays() -> None:
    paper = trainer_pb2.TrainingSettings(preset=trainer_pb2.PRESET_PAPER, cellpose={})
    plan = resolve(paper, 16).plan  # 2 steps an epoch
    peak = plan.learning_rate
    rates = [learning_rate(plan, step) for step in range(40)]
    np.testing.assert_allclose(rates[:20], np.repeat(np.linspace(0, peak, 10), 2))  # cellpose.train.train_seg
    assert set(rates[20:]) == {peak}


def test_the_fast_learning_rate_rises_and_falls_to_nearly_zero() -> None:
    plan = resolve(trainer_pb2.TrainingSettings(steps=100, warmup_steps=10, cellpose={}), 1).plan
    rates = [learning_rate(plan, step) for step in range(100)]
    assert np.argmax(rates) == 10
    assert rates[10] == plan.learning_rate
    assert 0 < rates[-1] < 0.001 * plan.learning_rate


def test_an_exported_model_predicts_the_same_from_its_folder_alone(tmp_path: Path) -> None:
    training = backend.create(small_config(cellprob_threshold=-6.0, flow_threshold=0.0), [disc_sample()], "cpu")
    for step in range(3):
        training.train_step(step)
    model = training.model()
    model.export(tmp_path)
    image = np.random.default_rng(0).random((50, 65), np.float32)
    np.testing.assert_array_equal(backend.open_model(tmp_path, "cpu").predict(image), model.predict(image))


def test_a_checkpoint_predicts_as_the_training_does(tmp_path: Path) -> None:
    training = backend.create(small_config(), [disc_sample()], "cpu")
    training.train_step(0)
    training.save(tmp_path)
    opened = backend.open_checkpoint(tmp_path, "cpu")
    image = disc_sample().image
    np.testing.assert_array_equal(opened.predict(image), training.model().predict(image))


def test_stock_cellpose_opens_the_exported_file_without_a_download_and_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("cellpose.utils.download_url_to_file", refuse)
    config = dataclasses.replace(small_config(), channels=(32, 64, 128, 256))
    training = backend.create(config, [disc_sample()], "cpu")
    training.train_step(0)
    training.model().export(tmp_path)
    stock = StockModel(pretrained_model=str(tmp_path / WEIGHTS_FILE))
    assert stock.diam_mean == config.mean_diameter
    assert stock.diam_labels == pytest.approx(16, rel=0.05)
    written = torch.load(tmp_path / WEIGHTS_FILE, weights_only=True)
    assert written.keys() == stock.net.state_dict().keys()
    assert all(torch.equal(value, written[name]) for name, value in stock.net.state_dict().items())
    image = disc_sample().image
    _, (_, flow, cellprob), _ = stock.eval(image, channels=[0, 0], normalize=False, compute_masks=False)
    opened = backend.open_model(tmp_path, "cpu")
    ours = opened._outputs(image[np.newaxis], opened._scale(opened._diameter))[0]
    np.testing.assert_allclose(ours, np.concatenate([flow, cellprob[np.newaxis]]), atol=1e-3)
