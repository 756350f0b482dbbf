"""Batch normalisation over the batches of all processes: torch's own on GPUs, and the same for CPUs."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance in training are those of all processes' crops."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise features, shape (B, C, Y, X)."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        space = (0, 2, 3)
        # Sums around the running mean, which all share, lose less to rounding than sums around 0.
        moved = input - self.running_mean[None, :, None, None]
        count = input.new_full((1,), input.numel() / input.shape[1])
        sums: Tensor = all_reduce(  # type: ignore[no-untyped-call]
            torch.cat([moved.sum(space), moved.square().sum(space), count])
        )
        first, second, everywhere = torch.split(sums, [input.shape[1], input.shape[1], 1])
        shift = first / everywhere
        variance = second / everywhere - shift.square()
        with torch.no_grad():
            assert self.momentum is not None
            self.running_mean += self.momentum * shift
            unbiased = variance * everywhere / (everywhere - 1).clamp(min=1)
            self.running_var += self.momentum * (unbiased - self.running_var)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = torch.rsqrt(variance + self.eps)
        normal = (moved - shift[None, :, None, None]) * scale[None, :, None, None]
        result: Tensor = normal * self.weight[None, :, None, None] + self.bias[None, :, None, None]
        return result


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
