"""Convolving enlarged features without making them is the same function."""

import torch
from torch.nn import functional

from cellsparse_torch.enlarged import convolve_enlarged


def drawn(*shape: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()


def test_values_and_gradients_are_those_of_the_plain_form():
    below, weight, bias = drawn(2, 5, 4, 6), drawn(3, 5, 3, 3), drawn(3)
    slope = drawn(2, 3, 8, 12).detach()
    twice = functional.interpolate(below, scale_factor=2.0, mode="nearest")
    plain = functional.conv2d(twice, weight, bias, padding=1)
    made = convolve_enlarged(below, weight, bias)
    torch.testing.assert_close(made, plain)
    gradients = [torch.autograd.grad(out, [below, weight, bias], slope) for out in (made, plain)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_in_bfloat16_the_kernel_is_rounded_once():
    ones = torch.ones(1, 1, 1, 1)
    weight = torch.full((1, 1, 3, 3), 1.0)
    weight[0, 0, 1, 1] = 2**-7  # lost where bfloat16 adds it to 3
    with torch.autocast("cpu", torch.bfloat16):
        made = convolve_enlarged(ones, weight)
    assert (made == torch.tensor(3 + 2**-7).bfloat16()).all()
    assert made.dtype == torch.bfloat16
