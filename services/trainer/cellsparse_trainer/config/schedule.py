"""The learning rate of a step: one meaning for all backends."""

import math

from cellsparse_trainer.config.plan import Plan

STAIRS = 10
"""Stairs of the "stairs" schedule: the epochs over which stock Cellpose's learning rate rises."""

GROWTH = {"none": 0.0, "square_root": 0.5, "linear": 1.0}
"""Power of the number of processes that the learning rate is multiplied with, by rule."""


def learning_rate(plan: Plan, step: int) -> float:
    """Return the learning rate of a step.

    Args:
        plan: Peak, steps, schedule, warm-up, last rate, processes and how the rate grows with them.
        step: Number of the step, from 0.
    """
    peak, warmup = plan.learning_rate * float(plan.world ** GROWTH[plan.rate_scaling]), plan.warmup_steps
    if plan.schedule == "stairs":
        return peak * min(1.0, step * STAIRS // warmup / (STAIRS - 1)) if warmup else peak
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if plan.schedule == "constant":
        return peak
    done = min(1.0, (step - warmup) / max(1, plan.steps - warmup))
    return peak * (plan.last_rate + (1 - plan.last_rate) * (1 + math.cos(math.pi * done)) / 2)
