"""Training one model with several processes: torch's process group, DistributedDataParallel, and exact averages.

Labels are sparse, so the processes' batches hold different numbers of labelled pixels, and the mean of their losses is
not the loss of all crops. Losses therefore divide by counts over all processes (`DataParallel.total`). Each process
then has its share of the loss of the whole batch: the shares add up, and so do their gradients.
"""

from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from cellsparse_common.errors import InvalidArgument
from cellsparse_torch.batch_norm import synchronised
from cellsparse_trainer.distributed.ranks import Ranks

TIMEOUT = timedelta(minutes=30)
"""Longest time of one collective operation; `cellsparse_trainer.distributed.heartbeat` sees lost processes sooner."""


class Total(Protocol):
    """Adds up over all processes."""

    def __call__(self, values: Tensor, /) -> Tensor:
        """Return the sum of all processes' values, without gradient."""


def local_only(values: Tensor, /) -> Tensor:
    """Return the values: the `Total` of a process that trains alone."""
    return values


class DataParallel:
    """The processes that train one model. A process that trains alone passes everything through.

    Args:
        ranks: This process' place among them.
        device: Where it computes.
        gradient_format: How gradients travel between processes (see `Plan`).
    """

    def __init__(self, ranks: Ranks, device: torch.device, gradient_format: str = "float32") -> None:
        self.ranks = ranks
        self.device = device
        self._halved = gradient_format == "float16"
        if not ranks.alone and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return a network to train with: its gradients are the sums of those of all processes' losses.

        Batch normalisation is synchronised. Weights become those of rank 0.
        """
        if self.ranks.alone:
            return network
        synchronised(network)
        ids = [self.device.index] if self.device.type == "cuda" else None
        wrapped = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
        if self._halved:
            wrapped.register_comm_hook(None, fp16_compress_hook)  # type: ignore[no-untyped-call]
        return wrapped

    def total(self, values: Tensor, /) -> Tensor:
        """Return the sum of all processes' values, without gradient."""
        if self.ranks.alone:
            return values
        values = values.detach().clone()
        dist.all_reduce(values)
        return values

    def backward(self, loss: Tensor) -> None:
        """Compute the gradient of the sum of all processes' shares of the loss."""
        # DistributedDataParallel takes the mean of the processes' gradients.
        torch.autograd.backward(loss if self.ranks.alone else loss * self.ranks.world)

    def sums(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Return the losses of all processes' crops together, by name."""
        summed = self.total(torch.stack([value.detach() for value in losses.values()]))
        return dict(zip(losses, summed.tolist(), strict=True))


def pin_gpu(device: torch.device, ranks: Ranks) -> torch.device:
    """Return the device of one of a node's processes: each process gets its own GPU.

    Raises:
        InvalidArgument: There are fewer GPUs than processes.
    """
    if device.type != "cuda" or ranks.alone:
        return device
    if ranks.local_rank >= torch.cuda.device_count():
        raise InvalidArgument(
            f"processes_per_node is above the number of this node's GPUs, {torch.cuda.device_count()}; "
            "each process needs one.",
            "settings.processes_per_node",
        )
    chosen = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(chosen)
    return chosen
