"""Averages of weights: the arithmetic, batch normalisation, and exact resume."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.averaged_weights import AveragedWeights, decay_of
from cellsparse_torch.data_parallel import DataParallel
from cellsparse_torch.training import STATE_FILE, TorchTraining, saved_weights
from cellsparse_trainer.config.presets import make_plan
from cellsparse_trainer.distributed.ranks import ALONE


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))


class Batches:
    def batch(self, step: int) -> SimpleNamespace:
        return SimpleNamespace(image=np.random.default_rng(step).random((2, 1, 8, 8), np.float32))


class Training(TorchTraining[nn.Sequential]):
    def make_optimizer(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(weights, 1e-2)

    def loss(self, batch: Any) -> dict[str, Tensor]:
        image = batch["image"]
        return {"loss": (self.forward(image) - image.sqrt()).square().mean()}


def training(decay: float) -> Training:
    plan = make_plan(
        trainer_pb2.TrainingSettings(),
        {
            "steps": 10,
            "batch_size": 2,
            "crop_size": 32,
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
            "lower_percentile": 0.0,
            "upper_percentile": 100.0,
            "validate_every": 10,
            "checkpoint_every": 10,
            "schedule": "constant",
            "warmup_steps": 0,
            "last_rate": 0.0,
        },
    )
    return Training(network(), Batches(), plan, DataParallel(ALONE, torch.device("cpu")), decay)


def test_the_average_is_the_recursion_over_weights_and_statistics() -> None:
    trained = network()
    average = AveragedWeights(trained, 0.5)
    expected = {name: value.clone().double() for name, value in trained.state_dict().items()}
    for step in range(12):
        with torch.no_grad():
            for value in trained.parameters():
                value.add_(0.1 * (step + 1))
        trained(torch.full((1, 1, 4, 4), float(step)))
        average.update(trained, step)
        keep = min(0.5, (1 + step) / (10 + step))
        for name, value in trained.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value.double()
    found = average.state_dict()
    for name in set(found) - {"1.num_batches_tracked"}:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(found["1.num_batches_tracked"]) == 12


def test_early_steps_keep_little_of_the_random_weights() -> None:
    assert decay_of(0.99, 0) == pytest.approx(0.1)
    assert decay_of(0.99, 90) == pytest.approx(0.91)
    assert decay_of(0.99, 10_000) == 0.99


def test_the_averaged_network_is_apart_from_the_trained_one() -> None:
    trained = network()
    average = AveragedWeights(trained, 0.9)
    assert not average.network.training
    assert trained.training
    assert not any(value.requires_grad for value in average.network.parameters())
    with torch.no_grad():
        trained[0].weight.fill_(7)
    assert not (average.network[0].weight == 7).any()


def test_training_is_the_same_with_and_without_averages() -> None:
    plain, averaged = training(0.0), training(0.9)
    assert [plain.train_step(step) for step in range(4)] == [averaged.train_step(step) for step in range(4)]
    assert plain.model_network is plain.network
    assert averaged.model_network is not averaged.network


def test_interrupted_and_resumed_has_bit_equal_averages(tmp_path: Path) -> None:
    whole, part, rest = training(0.9), training(0.9), training(0.9)
    for step in range(6):
        whole.train_step(step)
    for step in range(3):
        part.train_step(step)
    part.save(tmp_path)
    rest.load(tmp_path)
    for step in range(3, 6):
        rest.train_step(step)
    first, second = whole.model_network.state_dict(), rest.model_network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(
        torch.equal(value, rest.network.state_dict()[name]) for name, value in whole.network.state_dict().items()
    )


def test_a_model_of_a_checkpoint_gets_the_averages(tmp_path: Path) -> None:
    averaged = training(0.9)
    averaged.train_step(0)
    averaged.save(tmp_path)
    found = saved_weights(tmp_path)
    assert all(torch.equal(value, found[name]) for name, value in averaged.model_network.state_dict().items())


def test_a_checkpoint_without_averages_opens_and_they_begin_there(tmp_path: Path) -> None:
    plain, averaged = training(0.0), training(0.9)
    plain.train_step(0)
    plain.save(tmp_path)
    assert "average" not in torch.load(tmp_path / STATE_FILE, weights_only=True)
    averaged.load(tmp_path)
    state = plain.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in averaged.model_network.state_dict().items())
