"""The network's shape: ELEPHANT's, key by key."""

import pytest
import torch

from cellsparse_unet.network import UNet, initialise

# The state dict of elephant-server's UNet.three_class_segmentation(is_3d=False): block, channels in, channels out.
ELEPHANT_BLOCKS = [
    ("encoder.0", 1, 16),
    ("encoder.1", 16, 32),
    ("encoder.2", 32, 64),
    ("encoder.3", 64, 128),
    ("base", 128, 256),
    ("decoder.0", 384, 128),
    ("decoder.1", 192, 64),
    ("decoder.2", 96, 32),
    ("decoder.3", 48, 16),
]


def elephant_shapes(kernel):
    shapes = {}
    for name, before, after in ELEPHANT_BLOCKS:
        shapes |= {
            f"{name}.0.weight": (after, before, *kernel),
            f"{name}.0.bias": (after,),
            f"{name}.2.weight": (after,),
            f"{name}.2.bias": (after,),
            f"{name}.3.weight": (after, after, *kernel),
            f"{name}.3.bias": (after,),
            f"{name}.5.weight": (after,),
            f"{name}.5.bias": (after,),
        }
    shapes["out_conv.weight"] = (3, 16, *[1 for _ in kernel])
    shapes["out_conv.bias"] = (3,)
    return shapes


@pytest.mark.parametrize("dims", [2, 3])
def test_keys_and_shapes_are_elephants(dims):
    state = UNet(base_channels=16, dims=dims).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == elephant_shapes([3] * dims)


def test_groups_are_elephants():
    net = UNet()
    assert [net.encoder[n][2].num_groups for n in range(4)] == [16, 32, 32, 32]
    UNet(base_channels=5)  # 40 channels do not divide into 32 groups


def test_output_is_log_probabilities_of_the_input_size():
    with torch.inference_mode():
        out = UNet(base_channels=4)(torch.rand(2, 1, 48, 32))
        assert out.shape == (2, 3, 48, 32)
        torch.testing.assert_close(out.exp().sum(1), torch.ones(2, 48, 32))
        assert UNet(base_channels=4, dims=3)(torch.rand(1, 1, 16, 32, 16)).shape == (1, 3, 16, 32, 16)


def test_first_weights_depend_on_the_seed_alone():
    def weights(seed, before):
        torch.manual_seed(before)
        net = UNet(base_channels=4)
        initialise(net, seed)
        return torch.cat([value.flatten() for value in net.state_dict().values()])

    assert torch.equal(weights(2**64 - 1, 0), weights(2**64 - 1, 1))
    assert not torch.equal(weights(0, 0), weights(1, 0))


def test_training_computes_the_same_function_in_fewer_operations():
    net = UNet(base_channels=4).double()
    initialise(net, 0)
    image = torch.rand(2, 1, *net.multiples, dtype=torch.float64)
    found = {}
    for mode in (True, False):
        out = net.train(mode)(image)
        gradients = torch.autograd.grad(out[:, 2].exp().sum(), list(net.parameters()))
        found[mode] = (out, *gradients)
    for trained, plain in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(trained, plain)
