"""Batch normalisation over the batches of all processes: torch's own on GPUs, and the same for CPUs."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance in training are those of all processes' crops."""

    def forward(self, input: Tensor, copies: int = 1) -> Tensor:  # noqa: A002 - torch's name
        """Normalise features, shape (B, C, Y, X).

        Args:
            input: The features.
            copies: How often each pixel counts in the running variance, which is that of a sample.
        """
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        features = input.to(self.running_mean.dtype)
        with torch.no_grad():
            mean, variance, count = _everywhere(features, self.running_mean)
            self.running_mean += self.momentum * (mean - self.running_mean)
            sample = copies * count
            unbiased = variance * sample / (sample - 1).clamp(min=1)
            self.running_var += self.momentum * (unbiased - self.running_var)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        result: Tensor = _Normalise.apply(features, self.weight, self.bias, mean, variance, count, self.eps)  # type: ignore[no-untyped-call]
        return result


def _everywhere(features: Tensor, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance per channel, and the number of pixels, over all processes' features.

    Args:
        features: Shape (B, C, Y, X).
        near: One value per channel, equal in all processes: sums around it lose less to rounding than sums around 0.
    """
    channels = features.shape[1]
    mean, variance = torch.batch_norm_update_stats(features, None, None, 0.0)
    count = features.new_full((1,), features.numel() / channels)
    shift = mean - near
    sums = torch.cat([shift, variance + shift.square(), count])
    sums[:-1] *= count
    dist.all_reduce(sums)
    first, second, everywhere = torch.split(sums, [channels, channels, 1])
    shift = first / everywhere
    return near + shift, second / everywhere - shift.square(), everywhere


class _Normalise(torch.autograd.Function):
    """Normalises by given statistics, which depend on the features of all processes.

    Forward and backward are torch's fused kernels for fixed statistics. Their gradient lacks that of mean and variance,
    which is added here: grad += a + b * input with a, b per channel
    (Ioffe & Szegedy 2015, doi:10.48550/arXiv.1502.03167).
    """

    @staticmethod
    def forward(
        context: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        context.save_for_backward(features, weight, mean, variance, count)
        context.eps = eps
        return F.batch_norm(features, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, variance, count = context.saved_tensors
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], features, weight, mean, variance, None, None, False, context.eps, [True, True, True]
        )
        sums = torch.cat([of_bias, of_weight])
        dist.all_reduce(sums)
        everywhere_bias, everywhere_weight = sums.chunk(2)
        scale = torch.rsqrt(variance + context.eps)
        slope = -weight * scale.square() * everywhere_weight / count
        offset = -weight * scale * everywhere_bias / count - slope * mean
        shape = (1, -1, 1, 1)
        direct.addcmul_(features, slope.view(shape)).add_(offset.view(shape))
        return direct, of_weight, of_bias, None, None, None, None


def synchronised(network: nn.Module) -> None:
    """Replace a network's batch normalisations by synchronised ones, which share their weights and statistics."""
    on_gpu = dist.get_backend() == "nccl"
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _on_gpu(child) if on_gpu else _on_cpu(child))


def _on_gpu(norm: nn.BatchNorm2d) -> nn.Module:
    twin: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return twin


def _on_cpu(norm: nn.BatchNorm2d) -> SynchronisedBatchNorm:
    twin = SynchronisedBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    twin.weight, twin.bias = norm.weight, norm.bias
    twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
    twin.num_batches_tracked = norm.num_batches_tracked
    return twin.train(norm.training)
