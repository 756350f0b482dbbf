"""Switches for GPUs compute, on the CPU, what the training computes without them, and resume exactly."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose import backend
from cellsparse_cellpose.config import Config
from cellsparse_cellpose.data import Batch, Sampler
from cellsparse_cellpose.step import CellposeTraining
from cellsparse_common.errors import InvalidArgument
from cellsparse_torch import compiled
from cellsparse_trainer.data.samples import Sample

STEPS = 4
SWITCHES = [("compile_step",), ("pinned_prefetch",), ("device_augmentation", "pinned_prefetch")]


def switched(config: Config, *names: str) -> Config:
    plan = dataclasses.replace(config.plan, steps=STEPS, **dict.fromkeys(names, True))
    return dataclasses.replace(config, plan=plan)


def two_channels() -> Sample:
    one = disc_sample()
    return dataclasses.replace(one, image=np.stack([one.image, np.roll(one.image, 3, axis=1)], axis=-1))


def train(training: CellposeTraining, first: int = 0) -> list[float]:
    return [training.train_step(step)["loss"] for step in range(first, STEPS)]


@pytest.mark.parametrize("names", SWITCHES)
def test_losses_are_the_same_and_a_resumed_training_is_bit_equal(tmp_path: Path, names: tuple[str, ...]) -> None:
    samples = [disc_sample()]
    plain = train(backend.create(switched(small_config()), samples, "cpu"))
    config = switched(small_config(), *names)
    whole, resumed = backend.create(config, samples, "cpu"), backend.create(config, samples, "cpu")
    losses = [whole.train_step(0)["loss"]]
    whole.save(tmp_path)
    losses += train(whole, 1)
    # OpenCV, on the CPU, rounds positions to 1/32 of a pixel.
    np.testing.assert_allclose(losses, plain, rtol=0.02 if "device_augmentation" in names else 1e-4)
    resumed.load(tmp_path)
    assert train(resumed, 1) == losses[1:]
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


@pytest.mark.parametrize("sampling", ["cell", "image"])
@pytest.mark.parametrize("channels", [(), (0, 1)])
def test_crops_from_the_device_are_those_of_the_cpu(sampling: str, channels: tuple[int, ...]) -> None:
    samples = [two_channels() if channels else disc_sample(), disc_sample((40, 90))]
    samples = samples[:1] if channels else samples
    config = small_config(sampling=sampling)
    plan = dataclasses.replace(config.plan, channels=channels, colour_shift=0.2 if channels else 0.0, batch_size=4)
    config = dataclasses.replace(config, plan=plan)
    switched_on = switched(config, "device_augmentation")
    on_cpu, on_device = Sampler(samples, config), Sampler(samples, switched_on)
    training = backend.create(switched_on, samples, "cpu")
    for step in range(6):
        wanted = on_cpu.batch(step)
        assert isinstance(wanted, Batch)
        tensors = training._feed._bring(on_device.batch(step))
        image, flow = training._crops(tensors)
        np.testing.assert_array_equal(tensors["label"].numpy(), wanted.label)
        assert image.shape == wanted.image.shape
        for found, expected in ((image.numpy(), wanted.image), (flow.numpy(), wanted.flow)):
            difference = np.abs(found - expected)
            assert difference.mean() < 0.005
            assert difference.max() < 0.1  # at edges, by a 32nd of a pixel or two


def test_a_trainer_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InvalidArgument, match=r"compile_step is true, but this trainer has no C compiler \(no-such"):
        compiled.compiled(torch.nn.Linear(1, 1), torch.device("cuda"))


class Unready(torch.nn.Module):
    """Decides by its input's values, which cannot be compiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_compiled_is_named_in_one_sentence() -> None:
    run = compiled.compiled(Unready(), torch.device("cpu"))
    with pytest.raises(InvalidArgument, match="PyTorch could not compile this network: ") as caught:
        run(torch.ones(2))
    assert "\n" not in caught.value.message
