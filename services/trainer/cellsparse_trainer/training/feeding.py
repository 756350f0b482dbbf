"""How to feed a network: what a model's card and a checkpoint say alike."""

from typing import Any

from cellsparse_trainer.config.plan import Plan


def feeding(backend: str, plan: Plan) -> dict[str, Any]:
    """Return backend, axes and preprocessing of what a plan trains."""
    return {
        "backend": backend,
        "axes": "YX" if plan.crop_depth is None else "ZYX",
        "preprocessing": {
            "channel": plan.channel,
            "channels": list(plan.channels),
            "lower_percentile": plan.lower_percentile,
            "upper_percentile": plan.upper_percentile,
        },
    }
