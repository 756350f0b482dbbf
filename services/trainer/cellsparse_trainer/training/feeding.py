"""How to feed a network: what a model's card and a checkpoint say alike."""

from collections.abc import Sequence
from typing import Any

from cellsparse_proto.v1 import dataset_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.training.channel_choice import channel_names


def feeding(backend: str, plan: Plan, items: Sequence[dataset_pb2.DatasetItem]) -> dict[str, Any]:
    """Return backend, axes, preprocessing and names of channels of what a plan trains on some items."""
    return {
        "backend": backend,
        "axes": "YX" if plan.crop_depth is None else "ZYX",
        "preprocessing": {
            "channel": plan.channel,
            "channels": list(plan.channels),
            "lower_percentile": plan.lower_percentile,
            "upper_percentile": plan.upper_percentile,
        },
        "channel_names": channel_names(plan, items),
    }
