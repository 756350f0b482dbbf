"""How many steps fit into the minutes that were asked for, given how long this machine's first ones took."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from cellsparse_trainer.config.plan import Plan

SAFETY = 0.95
"""Share of the time that is planned with: a machine slows down at times."""
OVERTIME = 0.05
"""Share of the minutes by which steps may overrun, before the training ends with what it has."""
MOST_FINISHING = 0.15
"""Largest share of the minutes that is kept for thresholds and for storing the model. Untrained weights, which are what
is measured, find thousands of cells, so a prediction may seem slower than it will be."""
LEAST_FINISHING = 0.02
MOST_SETTING_UP = 0.5
"""Largest share of the minutes that setting up is expected to take."""
VALIDATIONS = 20
"""Most validations of a training of given length; with the usual patience half of them may bring nothing."""
FEW_STEPS, MANY_STEPS = 4, 4
"""Batches become smaller where fewer than the plan's steps by this factor fit, larger where more do."""
SMALLEST_BATCH, LARGEST_GROWTH = 2, 4
FIXED_SHARE = 0.2
"""Share of a step's time that does not depend on the batch."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured, in seconds."""

    before: float
    """From the beginning of the attempt until now."""
    setting_up: float
    """Expected from now to the first step."""
    first_step: float
    """Time of the first step, in which a framework prepares itself."""
    step: float
    """Median time of the steps after it."""
    validation: float
    """Time of a validation."""
    finishing: float
    """Expected from the last step to the end: thresholds, and storing the model."""


def fit_to_time(plan: Plan, measured: Measured, given: Collection[str] = ()) -> Plan:
    """Return the plan whose steps, and with them its learning rates, end when its minutes end.

    Batches stay as they are, unless far fewer or far more steps would fit than the plan has: then crops per step change
    by a factor of two or four.

    Args:
        plan: Has `minutes`; its steps are those that the data ask for.
        measured: Of this machine.
        given: Names of the plan's fields that the settings give; they stay.
    """
    assert plan.minutes is not None
    fitting = _fitting(plan, measured, 1.0)
    batch = plan.batch_size if "batch_size" in given else _fit_batch(plan, fitting)
    factor = batch / plan.batch_size
    steps = _fitting(plan, measured, factor) if factor != 1 else fitting
    every = plan.validate_every
    if "validate_every" not in given:
        every = max(every, -(-steps // VALIDATIONS))
    warmup = plan.warmup_steps if "warmup_steps" in given else min(plan.warmup_steps, steps // 4)
    crops = "" if factor == 1 else f" of {batch} crops instead of {plan.batch_size}"
    seconds = _seconds(measured, factor)
    sentence = (
        f"{steps} steps{crops} fit into {plan.minutes:g} minutes: {measured.before + measured.setting_up:.1f} s pass "
        f"before the first one, a step takes {seconds:.3f} s here, a validation {measured.validation:.1f} s, and "
        f"{finishing_seconds(plan, measured):.1f} s are kept for thresholds and storing."
    )
    return replace(plan, steps=steps, batch_size=batch, validate_every=every, warmup_steps=warmup, budget=sentence)


def finishing_seconds(plan: Plan, measured: Measured) -> float:
    """Return the seconds kept for what comes after the last step."""
    whole = 60 * (plan.minutes or 0.0)
    return min(MOST_FINISHING * whole, max(LEAST_FINISHING * whole, measured.finishing))


def step_seconds_allowed(plan: Plan, finishing: float | None) -> float | None:
    """Return the seconds from the beginning of an attempt after which no further step is taken; None: there are none.

    Args:
        plan: May have `minutes`.
        finishing: Seconds kept for what comes after the last step; None: not measured.
    """
    if plan.minutes is None:
        return None
    whole = 60 * plan.minutes
    return (1 + OVERTIME) * whole - (MOST_FINISHING * whole if finishing is None else finishing)


def _fitting(plan: Plan, measured: Measured, factor: float) -> int:
    """Return how many steps fit with batches of `factor` times the size, from 1."""
    whole = 60 * (plan.minutes or 0.0)
    setting_up = min(measured.setting_up, MOST_SETTING_UP * whole)
    left = SAFETY * whole - measured.before - setting_up - measured.first_step - finishing_seconds(plan, measured)
    step = _seconds(measured, factor)
    once = max(1, int(left / (step + measured.validation / plan.validate_every)))
    at_most = int((left - VALIDATIONS * measured.validation) / step)  # where validations are further apart instead
    return max(once, at_most)


def _seconds(measured: Measured, factor: float) -> float:
    return max(1e-6, measured.step * (FIXED_SHARE + (1 - FIXED_SHARE) * factor))


def _fit_batch(plan: Plan, fitting: int) -> int:
    batch, wanted = plan.batch_size, plan.steps
    while fitting * FEW_STEPS < wanted and batch // 2 >= SMALLEST_BATCH:
        batch, fitting = batch // 2, 2 * fitting
    while fitting > MANY_STEPS * wanted and 2 * batch <= LARGEST_GROWTH * plan.batch_size and 2 * batch <= 256:
        batch, fitting = 2 * batch, fitting // 2
    return batch
