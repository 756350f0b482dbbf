"""The network that trains is stock Cellpose's, computed in another way."""

import torch
from cellpose.resnet_torch import CPnet

from cellsparse_cellpose.training_network import TrainedNetwork

CHANNELS = [2, 4, 8, 16]


def pair() -> tuple[TrainedNetwork, CPnet]:
    torch.manual_seed(3)
    ours, stock = TrainedNetwork([*CHANNELS], 3, sz=3), CPnet([*CHANNELS], 3, sz=3)
    stock.load_state_dict(ours.state_dict())
    return ours.double(), stock.double()


def test_outputs_gradients_and_running_statistics_are_stock_cellposes():
    ours, stock = pair()
    images = torch.rand(2, 2, 16, 16, dtype=torch.float64)
    slope = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for _ in range(2):
        for network in (ours, stock):
            network.train().zero_grad()
            network(images)[0].backward(slope)
    for one, two in zip(ours(images), stock(images), strict=True):
        torch.testing.assert_close(one, two)
    gradients = [{name: w.grad for name, w in network.named_parameters()} for network in (ours, stock)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(ours.state_dict(), stock.state_dict())


def test_outside_training_it_computes_exactly_as_stock_cellpose():
    ours, stock = pair()
    images = torch.rand(1, 2, 16, 16, dtype=torch.float64)
    assert torch.equal(ours.eval()(images)[0], stock.eval()(images)[0])
