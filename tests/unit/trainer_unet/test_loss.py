"""What a pixel may and may not teach."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cellsparse_trainer.data.background import LIKELY
from cellsparse_unet.loss import segmentation_loss
from cellsparse_unet.targets import NOT_CENTRE, TOUCHING

WEIGHTS = torch.tensor([1.0, 10.0, 10.0, 0.25, 30.0])
SHARES = (1 / 7, 5 / 7, 1 / 7)


def logits(seed=0, shape=(2, 3, 32, 32)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def target():
    out = torch.full((2, 32, 32), -1)
    out[0, 4:20, 4:20] = 0
    out[0, 8:16, 8:16] = 1
    out[0, 10:14, 10:14] = 2
    out[1, 3, 3] = 0
    return out


@pytest.mark.parametrize("part", ["nll", "dice"])
def test_unlabelled_pixels_have_no_gradient(part):
    x, y = logits(), target()
    segmentation_loss(F.log_softmax(x, 1), y, WEIGHTS, SHARES)[part].backward()
    unlabelled = (y < 0)[:, None].expand_as(x)
    assert (x.grad[unlabelled] == 0).all()
    assert (x.grad[0, :, 4:20, 4:20] != 0).any()


def test_smoothness_acts_everywhere():
    x = logits()
    segmentation_loss(F.log_softmax(x, 1), torch.full((2, 32, 32), -1), WEIGHTS, SHARES)["loss"].backward()
    assert (x.grad != 0).float().mean() > 0.99


def test_nll_is_torchs_weighted_mean_per_crop():
    x, y = F.log_softmax(logits(), 1), target()
    expected = torch.stack(
        [F.nll_loss(x[n : n + 1], y[n : n + 1], WEIGHTS[:3], ignore_index=-1) for n in range(2)]
    ).mean()
    torch.testing.assert_close(segmentation_loss(x, y, WEIGHTS, SHARES)["nll"], expected)


def test_likely_background_is_background_of_less_weight():
    x, y = F.log_softmax(logits(), 1), target()
    likely = torch.where(y == 0, LIKELY, y)
    quarter = torch.tensor([0.25, 10.0, 10.0, 0.0, 0.0])
    torch.testing.assert_close(
        segmentation_loss(x, likely, WEIGHTS, SHARES)["nll"], segmentation_loss(x, y, quarter, SHARES)["nll"]
    )


def test_touching_pixels_are_outer_ones_of_another_weight():
    x, y = F.log_softmax(logits(), 1), target()
    touching = torch.where(y == 1, TOUCHING, y)
    heavy = torch.tensor([1.0, 30.0, 10.0, 0.0, 0.0])
    found = segmentation_loss(x, touching, WEIGHTS, SHARES)
    expected = segmentation_loss(x, y, heavy, SHARES)
    torch.testing.assert_close(found["nll"], expected["nll"])
    torch.testing.assert_close(found["dice"], expected["dice"])


def test_a_pixel_that_is_no_centre_asks_for_no_more_than_that():
    x, y = logits(), torch.full((2, 32, 32), NOT_CENTRE)
    probability = F.softmax(x, 1)
    found = segmentation_loss(probability.log(), y, WEIGHTS, SHARES)["nll"]
    torch.testing.assert_close(found, -(1 - probability[:, 2]).log().mean())
    found.backward()
    # The gradient leaves the ratio of background and outer as it is.
    shares = probability.detach()[:, :2] / probability.detach()[:, :2].sum(1, keepdim=True)
    torch.testing.assert_close(x.grad[:, :2], -x.grad[:, 2:] * shares, atol=1e-7, rtol=1e-4)


def test_dice_counts_crops_with_a_centre_only():
    y = target()
    perfect = F.one_hot(y.clamp(min=0), 3).permute(0, 3, 1, 2).float().clamp(1e-9, 1).log()
    assert segmentation_loss(perfect, y, WEIGHTS, SHARES)["dice"].item() == pytest.approx(0, abs=1e-5)
    y[0] = torch.where(y[0] == 2, 1, y[0])
    assert segmentation_loss(perfect, y, WEIGHTS, SHARES)["dice"].item() == 0


def test_sum_of_shares():
    parts = segmentation_loss(F.log_softmax(logits(), 1), target(), WEIGHTS, SHARES)
    expected = (parts["nll"] + 5 * parts["dice"] + parts["smooth"]) / 7
    torch.testing.assert_close(parts["loss"], expected)


@pytest.mark.parametrize("fill", [-1, 0, 1, 2, LIKELY, NOT_CENTRE, TOUCHING])
def test_always_finite(fill):
    x = (logits().detach() * 1e4).requires_grad_()
    loss = segmentation_loss(F.log_softmax(x, 1), torch.full((2, 32, 32), fill), WEIGHTS, SHARES)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
