"""How long FAST trains: as long as the number and the variety of the labelled cells pay.

A few cells of one kind are learned in a few hundred steps; more steps only repeat them. Hundreds of images of many
kinds are not: there, accuracy still rises at four times as many. Nothing here looks at pixels: the manifest counts
labelled cells per item, and that decides.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cellsparse_proto.v1 import dataset_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan

FEW = 24.0
"""Variety (see `DataSummary.variety`) up to which FAST trains for its fewest steps: 7 images of 10 cells have it."""
ROUND = 10
"""Steps are a multiple of this."""
VALIDATIONS = 12
"""Most validations of a training whose steps grow with the data. Scores stay the same for long while the learning rate
is high, and rise again where it falls. With more validations the usual patience would end a training before that."""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What the manifest says about the training items.

    Raises:
        ValueError: A number is negative.
    """

    images: int
    """Items with a labelled cell."""
    cells: int
    """Labelled cells of all items."""
    variety: float
    """Sum over the items of log2(1 + labelled cells). Cells of one image resemble each other, so the second cell of an
    image adds less than the first of another."""

    def __post_init__(self) -> None:
        for name in ("images", "cells", "variety"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: from 0.")


def summarize(cells: Iterable[int]) -> DataSummary:
    """Return the summary of items from how many labelled cells each has."""
    counts = [count for count in cells if count]
    return DataSummary(
        images=len(counts), cells=sum(counts), variety=math.fsum(math.log2(1 + count) for count in counts)
    )


def summarize_items(items: Iterable[dataset_pb2.DatasetItem]) -> DataSummary:
    """Return the summary of items of a manifest."""
    return summarize(item.cells for item in items)


def growth(data: DataSummary, power: float = 0.5) -> float:
    """Return by what factor training on these data gains from more steps than training on a few cells does, from 1.

    It is the square root of the variety, twice the steps for four times the data, unless a backend's preset has another
    power: networks differ in how much they have left to learn.
    """
    return max(1.0, math.pow(data.variety / FEW, power))


def fit_to_data(plan: Plan, settings: trainer_pb2.TrainingSettings, data: DataSummary) -> Plan:
    """Return the plan with the steps that the data ask for, and with a sentence that says why.

    Steps that are given stay, as do those of a preset without `most_steps`. With more steps validations are further
    apart, unless the settings say how far.

    Args:
        plan: As a preset and the given settings have it; its steps are those for a few cells.
        settings: What was asked for.
        data: The training items.
    """
    if settings.HasField("steps"):
        return replace(plan, budget=f"{plan.steps} steps, as the settings say.")
    about = f"{data.cells} labelled cells on {data.images} images"
    if plan.most_steps <= plan.steps:
        return replace(plan, budget=f"{plan.steps} steps, the preset's.")
    wanted = plan.steps * growth(data, plan.steps_power)
    steps = min(plan.most_steps, round(wanted / ROUND) * ROUND) if wanted > plan.steps else plan.steps
    every = plan.validate_every
    if steps > plan.steps and not settings.HasField("validate_every_steps"):
        every = max(every, -(-steps // VALIDATIONS))
    why = f"{steps} steps for {about}"
    if steps == plan.most_steps:
        budget = f"{why}: the most of this preset, {plan.steps} are for few cells."
        return replace(plan, steps=steps, validate_every=every, budget=budget)
    if steps == plan.steps:
        return replace(plan, budget=f"{why}: the fewest of this preset.")
    times = steps / plan.steps
    budget = f"{why}: {times:.1f} times those for few cells on few images."
    return replace(plan, steps=steps, validate_every=every, budget=budget)
