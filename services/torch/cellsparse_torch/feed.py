"""Brings batches to the device: when a step asks for them, or during the step before."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellsparse_trainer.data.prefetch import Batches

Tensors = dict[str, Any]
"""What a batch holds by name: arrays as tensors on the device, anything else as it is."""


@dataclass(frozen=True)
class _Held:
    step: int
    tensors: Tensors


class Feed:
    """The batches of a training, on its device.

    With `ahead`, the training calls `prepare` with the next step while the device computes. On a GPU the batch then
    travels from pinned memory on a stream of its own, beside the computation. Batches are functions of their step, so a
    step that was not prepared, such as the first one of a resumed training, gets the same batch.

    Args:
        device: Where the tensors go.
        contents: Returns what a batch holds, by name.
        ahead: Whether batches are prepared.
    """

    def __init__(self, device: torch.device, contents: Callable[[Any], Mapping[str, Any]], *, ahead: bool) -> None:
        self._device = device
        self._contents = contents
        self._ahead = ahead
        self._stream = _new_stream(device) if ahead and device.type == "cuda" else None
        self._held: _Held | None = None

    def take(self, batches: Batches, step: int) -> Tensors:
        """Return the batch of a step (from 0)."""
        held, self._held = self._held, None
        if held is None or held.step != step:
            return self._bring(batches.batch(step))
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for value in held.tensors.values():
                if isinstance(value, Tensor):
                    value.record_stream(current)  # the memory belongs to the other stream, which may not reuse it yet
        return held.tensors

    def prepare(self, batches: Batches, step: int) -> None:
        """Begin to bring the batch of a step, if batches are prepared."""
        if not self._ahead:
            return
        batch = batches.batch(step)
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            self._held = _Held(step, self._bring(batch))

    def _bring(self, batch: Any) -> Tensors:
        return {name: self._to_device(value) for name, value in self._contents(batch).items()}

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.from_numpy(value)
        if self._stream is None:
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
