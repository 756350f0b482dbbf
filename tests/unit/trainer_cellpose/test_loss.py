import numpy as np
import torch
from cellpose.train import _loss_fn_seg

from cellsparse_torch.flows.loss import masked_loss


def tensors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    output = torch.tensor(rng.normal(size=(2, 3, 8, 8)), dtype=torch.float32, requires_grad=True)
    label = torch.tensor(rng.integers(0, 2, (2, 8, 8)), dtype=torch.int16)
    flow = torch.tensor(rng.normal(size=(2, 2, 8, 8)), dtype=torch.float32)
    return output, label, flow


def test_it_is_cellposes_loss_where_all_is_labelled() -> None:
    output, label, flow = tensors()
    stacked = np.concatenate([label[:, None].numpy(), flow.numpy()], axis=1).astype(np.float32)
    stock = _loss_fn_seg(stacked, output, torch.device("cpu"))
    torch.testing.assert_close(masked_loss(output, label, flow)["loss"], stock)


def test_unlabelled_pixels_have_no_gradient_and_no_say() -> None:
    output, label, flow = tensors()
    label[:, :5] = -1
    losses = masked_loss(output, label, flow)
    losses["loss"].backward()
    assert (output.grad[:, :, :5] == 0).all()
    assert (output.grad[:, :, 5:] != 0).all()
    changed = output.detach().clone()
    changed[:, :, :5] = 1e6
    torch.testing.assert_close(masked_loss(changed, label, flow)["loss"], losses["loss"])


def test_the_mean_is_over_labelled_pixels() -> None:
    output, label, flow = tensors()
    label[1] = -1
    part = masked_loss(output[:1], label[:1], flow[:1])["loss"]
    torch.testing.assert_close(masked_loss(output, label, flow)["loss"], part)


def test_nothing_labelled_is_zero_not_nan() -> None:
    output, label, flow = tensors()
    losses = masked_loss(output, torch.full_like(label, -1), flow)
    losses["loss"].backward()
    assert losses["loss"].item() == 0
    assert (output.grad == 0).all()


def test_weighted_background_counts_as_that_many_pixels() -> None:
    output, label, flow = tensors()
    cells = masked_loss(output, torch.where(label > 0, label, -1), flow)["cellprob"] * (label > 0).sum()
    background = masked_loss(output, torch.where(label > 0, -1, label), flow)["cellprob"] * (label == 0).sum()
    expected = (cells + 3 * background) / ((label > 0).sum() + 3 * (label == 0).sum())
    losses = masked_loss(output, label, flow, background_weight=3.0)
    torch.testing.assert_close(losses["cellprob"], expected)
    torch.testing.assert_close(losses["flow"], masked_loss(output, label, flow)["flow"])


def test_likely_background_is_background_in_the_cell_probability_only() -> None:
    output, label, flow = tensors()
    likely = torch.where(label == 0, -2, label)
    losses = masked_loss(output, likely, flow, background_weight=3.0, likely_weight=0.5)
    expected = masked_loss(output, label, flow, background_weight=0.5)
    torch.testing.assert_close(losses["cellprob"], expected["cellprob"])
    unlabelled = masked_loss(output, torch.where(label == 0, -1, label), flow)
    torch.testing.assert_close(losses["flow"], unlabelled["flow"])
    torch.testing.assert_close(masked_loss(output, likely, flow)["loss"], unlabelled["loss"])
