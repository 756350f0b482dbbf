"""Faults of the reference, and of data, that Cellpose's training must not have."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from support.odd_images import check_predicts, odd_images
from support.poisoned_training import check_poisoned_run, digest
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose import backend, data
from cellsparse_cellpose.model import CellposeModel
from cellsparse_cellpose.network import build_network
from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.data.samples import Sample


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small only lose by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    check_poisoned_run(backend, small_config(), [disc_sample()], tmp_path)


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_reaches_the_weights() -> None:
    training = backend.create(small_config(), [disc_sample()], "cpu")
    weight = next(each for each in training.network.parameters() if each.requires_grad)
    weight.register_hook(lambda gradient: gradient * float("nan"))
    before = [weight.detach().clone() for weight in training.network.parameters()]
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1"):
        training.train_step(0)
    assert all(torch.equal(one, two) for one, two in zip(before, training.network.parameters(), strict=True))


@pytest.mark.parametrize("sampling", ["cell", "image"])
def test_nothing_of_the_data_is_changed_by_a_whole_training(sampling: str, tmp_path: Path) -> None:
    sample = disc_sample()
    sample = dataclasses.replace(sample, image=sample.image.copy(), label=sample.label.copy())
    before = digest([sample])
    training = backend.create(small_config(sampling=sampling), [sample], "cpu")
    for step in range(3):
        training.train_step(step)
    model = training.model()
    model.tune([sample])
    model.predict(sample.image)
    model.export(tmp_path)
    assert digest([sample]) == before


@pytest.mark.parametrize("corner", [(0, 0), (0, 1199), (1199, 0), (1199, 1199)])
@pytest.mark.parametrize("sampling", ["cell", "image"])
def test_one_labelled_pixel_in_a_corner_is_found_in_a_bounded_number_of_tries(
    sampling: str, corner: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.full((1200, 1200), -1, np.int32)
    label[corner] = 1
    sample = Sample(name="one", image=np.zeros(label.shape, np.float32), label=label)
    drawing = data.Sampler([sample], small_config(sampling=sampling))
    cut, calls = data.cut, []
    monkeypatch.setattr(data, "cut", lambda *given: calls.append(1) or cut(*given))
    for step in range(3):
        assert (drawing.batch(step).label == 1).any(axis=(1, 2)).all()
    assert len(calls) <= 3 * 2 * (data.UNIFORM_TRIES + 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said_before_any_item_is_read_and_for_a_model_too(tmp_path: Path) -> None:
    class Unread(list[Sample]):
        def __getitem__(self, index: object) -> Sample:
            raise AssertionError("an item was read")

        __iter__ = __getitem__

    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.create(small_config(), Unread([disc_sample()]), "cuda")
    backend.create(small_config(), [disc_sample()], "cpu").model().export(tmp_path)
    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.open_model(tmp_path, "cuda")


@pytest.fixture(scope="module")
def unfit() -> list[CellposeModel]:
    """Models that have learnt nothing: one as it is, one that finds cells everywhere, one whose output is NaN."""
    eager = small_config(cellprob_threshold=-6.0, flow_threshold=0.0, min_size=0)
    models = [CellposeModel(build_network(config), config, 12.0) for config in (small_config(), eager, eager)]
    with torch.no_grad():
        for weight in models[2]._network.output.parameters():
            weight.mul_(1e38).mul_(1e38)
    return models


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(image=odd_images())
def test_any_image_gives_labels_or_a_sentence(unfit: list[CellposeModel], image: np.ndarray) -> None:
    for model in unfit:
        check_predicts(model.predict, image)
