"""The contract: training, exact resume, export, any image size."""

import json

import numpy as np
import pytest
import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.outline_refinement import OutlineLevel
from cellsparse_unet import backend
from cellsparse_unet import model as model_module
from cellsparse_unet.tiles import flipped_probabilities, probabilities


def state(training):
    return {name: value.clone() for name, value in training.network.state_dict().items()}


def test_resumed_equals_uninterrupted(cell_sample, make_config, tmp_path):
    config = make_config()
    whole = backend.create(config, [cell_sample], "cpu")
    losses = [whole.train_step(step) for step in range(6)]
    first = backend.create(config, [cell_sample], "cpu")
    for step in range(3):
        first.train_step(step)
    first.save(tmp_path)
    second = backend.create(config, [cell_sample], "cpu")
    second.load(tmp_path)
    assert [second.train_step(step) for step in range(3, 6)] == losses[3:]
    for name, value in state(whole).items():
        assert torch.equal(value, state(second)[name]), name
    averages = whole.model_network.state_dict(), second.model_network.state_dict()
    assert all(torch.equal(value, averages[1][name]) for name, value in averages[0].items())
    assert not all(torch.equal(value, averages[0][name]) for name, value in state(whole).items())
    assert all(type(value) is float for value in losses[0].values())


def test_labels_are_not_changed(cell_sample, make_config):
    before = cell_sample.label.copy()
    training = backend.create(make_config(), [cell_sample], "cpu")
    training.train_step(0)
    training.model().tune([cell_sample])
    np.testing.assert_array_equal(cell_sample.label, before)


def test_training_learns(cell_sample, make_config):
    training = backend.create(make_config(steps=25, learning_rate=0.01), [cell_sample], "cpu")
    losses = [training.train_step(step)["loss"] for step in range(25)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_exported_model_predicts_the_same(cell_sample, make_config, tmp_path):
    training = backend.create(make_config(), [cell_sample], "cpu")
    for step in range(6):
        training.train_step(step)
    model = training.model()
    model.tune([cell_sample])
    model.export(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "unet.pt"]
    opened = backend.open_model(tmp_path, "cpu")
    assert opened.thresholds == model.thresholds
    np.testing.assert_array_equal(opened.predict(cell_sample.image), model.predict(cell_sample.image))
    weights = torch.load(tmp_path / "unet.pt", weights_only=True)
    assert set(weights) == set(state(training))


def test_a_score_is_the_mean_probability_of_not_being_background(cell_sample, make_config):
    training = backend.create(make_config(centre_threshold=0.3), [cell_sample], "cpu")
    for step in range(6):
        training.train_step(step)
    model = training.model()
    model.tune([cell_sample])
    found = model.segment(cell_sample.image)
    np.testing.assert_array_equal(found.labels, model.predict(cell_sample.image))
    background = flipped_probabilities(training.model_network, cell_sample.image)[0]
    numbers = np.unique(found.labels[found.labels > 0])
    assert len(numbers)
    np.testing.assert_allclose(found.scores, [1 - background[found.labels == n].mean() for n in numbers], atol=1e-5)


def test_flips_begin_with_the_thresholds_that_are_tuned_for_them(cell_sample, make_config, tmp_path, monkeypatch):
    used = []

    def noting(*given, half):
        used.append(1)
        return probabilities(*given, half=half)

    monkeypatch.setattr(model_module, "flipped_probabilities", noting)
    model = backend.create(make_config(), [cell_sample], "cpu").model()
    model.predict(cell_sample.image)
    assert not used
    model.tune([cell_sample])
    model.predict(cell_sample.image)
    assert len(used) == 2
    model.export(tmp_path)
    backend.open_model(tmp_path, "cpu").predict(cell_sample.image)
    assert len(used) == 3
    without = backend.create(make_config(test_flips=False), [cell_sample], "cpu").model()
    without.tune([cell_sample])
    assert len(used) == 3


def test_damaged_models_are_refused(cell_sample, make_config, tmp_path):
    backend.create(make_config(), [cell_sample], "cpu").model().export(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["config"]["base_channels"] = 8
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(InvalidArgument, match="no U-Net model"):
        backend.open_model(tmp_path, "cpu")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidArgument, match="no U-Net model"):
        backend.open_model(tmp_path, "cpu")


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 64), (130, 95)])
def test_any_size_is_predicted(shape, cell_sample, make_config):
    model = backend.create(make_config(), [cell_sample], "cpu").model()
    found = model.predict(np.random.default_rng(0).random(shape, np.float32))
    assert found.shape == shape
    assert found.dtype == np.int32
    assert found.min() == 0


def test_infinite_loss_names_the_step(cell_sample, make_config):
    broken = Sample(name="b", image=np.full(cell_sample.image.shape, np.nan, np.float32), label=cell_sample.label)
    training = backend.create(make_config(), [broken], "cpu")
    before = state(training)
    with pytest.raises(FloatingPointError, match="step 5"):
        training.train_step(4)
    assert all(torch.equal(value, before[name]) for name, value in state(training).items())


def test_missing_gpu_is_said(cell_sample, make_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.create(make_config(), [cell_sample], "cuda")
    with pytest.raises(InvalidArgument, match="allowed: auto, cpu, cuda"):
        backend.create(make_config(), [cell_sample], "tpu")
    backend.create(make_config(), [cell_sample], "auto")


def test_devices_and_versions():
    assert backend.devices()[0] == "cpu"
    assert set(backend.versions()) >= {"torch", "numpy"}


def test_bfloat16_is_refused_on_a_cpu_without_it(make_config, cell_sample, monkeypatch):
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: False)
    with pytest.raises(InvalidArgument, match="precision is BFLOAT16, but this CPU does not compute in it"):
        backend.create(make_config(precision="bfloat16"), [cell_sample], "cpu")
    backend.create(make_config(precision="auto"), [cell_sample], "cpu").train_step(0)


def test_a_training_takes_bfloat16_on_a_cpu_only_if_it_is_asked_for(make_config, cell_sample, monkeypatch):
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: True)
    assert backend.has_bfloat16("cpu")
    assert not backend.gains_from_bfloat16("cpu")
    for precision, half in (("auto", False), ("bfloat16", True)):
        assert backend.create(make_config(precision=precision), [cell_sample], "cpu").half_on_cpu is half


def test_a_training_in_bfloat16_learns_the_same(make_config, cell_sample, monkeypatch):
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: True)  # else it is emulated, slowly
    losses = {}
    for precision in ("bfloat16", "float32"):
        training = backend.create(make_config(precision=precision), [cell_sample], "cpu")
        losses[precision] = [training.train_step(step)["loss"] for step in range(6)]
        assert {weight.dtype for weight in training.network.parameters()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1)


def test_a_checkpoint_predicts_as_the_training_does(cell_sample, make_config, tmp_path):
    training = backend.create(make_config(), [cell_sample], "cpu")
    for step in range(6):
        training.train_step(step)
    training.save(tmp_path)
    opened = backend.open_checkpoint(tmp_path, "cpu")
    np.testing.assert_array_equal(opened.predict(cell_sample.image), training.model().predict(cell_sample.image))


@pytest.mark.parametrize("refine_outlines", [True, False])
def test_the_level_of_outlines_is_fitted_kept_and_used(
    cell_sample, make_config, tmp_path, monkeypatch, refine_outlines
):
    seen = []

    def noting(image, found, level):
        seen.append((image.shape, level))
        return found

    monkeypatch.setattr(model_module, "fit_level", lambda samples, predict: OutlineLevel(level=0.35))
    monkeypatch.setattr(model_module, "refine", noting)
    tuned = backend.create(make_config(refine_outlines=refine_outlines), [cell_sample], "cpu").model()
    tuned.fit_outlines([cell_sample])
    tuned.export(tmp_path)
    level = OutlineLevel(level=0.35) if refine_outlines else None
    for each in (tuned, backend.open_model(tmp_path, "cpu")):
        each.predict(cell_sample.image)
        assert seen.pop() == (cell_sample.image.shape, level)
        each.windows(FedImage(cell_sample.image, lambda part: part, 0, 100)).segment((4, 30, 2, 40))
        assert seen.pop() == ((26, 38), level)
