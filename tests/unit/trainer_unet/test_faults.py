"""Faults of the reference, and of data, that the U-Net must not have."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from support.limits import PATIENCE
from support.odd_images import check_predicts, odd_images
from support.poisoned_training import check_poisoned_run, digest

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet import backend, crops, data
from cellsparse_unet.config import resolve
from cellsparse_unet.instances import default_thresholds, find_cells
from cellsparse_unet.model import UnetModel
from cellsparse_unet.network import UNet, initialise


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(cell_sample, make_config, tmp_path):
    check_poisoned_run(backend, make_config(), [cell_sample], tmp_path)


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(cell_sample, make_config):
    training = backend.create(make_config(), [cell_sample], "cpu")
    next(training.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    before = [weight.detach().clone() for weight in training.network.parameters()]
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1"):
        training.train_step(0)
    assert all(torch.equal(one, other) for one, other in zip(before, training.network.parameters(), strict=True))


def test_nothing_of_the_data_is_changed_by_a_whole_training(cell_sample, make_config, tmp_path):
    writable = dataclasses.replace(cell_sample, image=cell_sample.image.copy(), label=cell_sample.label.copy())
    before = digest([writable])
    training = backend.create(make_config(), [writable], "cpu")
    for step in range(3):
        training.train_step(step)
    model = training.model()
    model.tune([writable])
    model.predict(writable.image)
    model.export(tmp_path)
    assert digest([writable]) == before


@pytest.mark.parametrize("corner", [(0, 0), (0, 1199), (1199, 0), (1199, 1199)])
@pytest.mark.parametrize("spread", [True, False])
def test_one_labelled_pixel_in_a_corner_is_found_in_a_few_tries(corner, spread, make_config, monkeypatch):
    label = np.full((1200, 1200), -1, np.int32)
    label[corner] = 1
    sample = Sample(name="one", image=np.zeros(label.shape, np.float32), label=label)
    sampler = data.Sampler([sample], make_config(spread=spread, batch_size=4, likely_background=0.0))
    cut, calls = crops._take, []
    monkeypatch.setattr(crops, "_take", lambda *given: calls.append(1) or cut(*given))
    for step in range(3):
        classes = sampler.batch(step)[1]
        assert (classes > 0).any(axis=(1, 2)).all()
    assert len(calls) <= 3 * 4 * (crops.TRIES + 1)


def test_a_model_is_not_opened_on_a_gpu_that_is_missing(cell_sample, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backend.create(make_config(), [cell_sample], "cpu").model().export(tmp_path)
    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.open_model(tmp_path, "cuda")


def test_a_missing_gpu_is_said_before_any_item_is_read(make_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    class Unread(list):
        def __getitem__(self, index):
            raise AssertionError("an item was read")

        __iter__ = __getitem__

    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.create(make_config(), Unread([1]), "cuda")


def centres(kind):
    """Centre maps on which the reference's iterative fit of ellipses may never end."""
    found = np.zeros((48, 64), bool)
    if kind == "pixel":
        found[7, 9] = True
    elif kind == "row":
        found[3, 2:60] = True
    elif kind == "column":
        found[:, 63] = True
    elif kind == "diagonal":
        found[np.arange(40), np.arange(40)] = found[np.arange(40), np.arange(40) + 1] = True
    elif kind == "corners":
        found[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    elif kind == "huge":
        found[:] = True
    return found


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("method", ["ellipse", "watershed"])
@pytest.mark.parametrize("kind", ["pixel", "row", "column", "diagonal", "corners", "huge"])
def test_cells_without_an_inside_become_cells_all_the_same(kind, method, make_config):
    centre = centres(kind)
    probability = np.stack([np.where(centre, 0.01, 0.97), np.full(centre.shape, 0.01), np.where(centre, 0.98, 0.02)])
    cut = dataclasses.replace(
        default_thresholds(make_config()), method=method, centre_smoothing=0.0, centre_threshold=0.5
    )
    label = find_cells(probability.astype(np.float32), cut)
    assert label.shape == centre.shape
    assert set(np.unique(label)) - {0} == set(range(1, label.max() + 1))
    assert label.max() == (4 if kind == "corners" else 1)
    if kind not in ("diagonal", "huge"):
        assert (label[centre] > 0).all()


@pytest.fixture(scope="module")
def unfit():
    """Models that have learnt nothing: one as it is, one whose output is beyond all numbers."""
    asked = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4))
    config = resolve(asked, 1)
    nets = [UNet(base_channels=4), UNet(base_channels=4)]
    for net in nets:
        initialise(net, 1)
    with torch.no_grad():
        nets[1].out_conv.weight.mul_(1e38)
    return [UnetModel(net, config) for net in nets]


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(image=odd_images())
def test_any_image_gives_labels_or_a_sentence(unfit, image):
    for model in unfit:
        check_predicts(model.predict, image)
