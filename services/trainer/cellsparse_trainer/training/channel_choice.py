"""Which channels of its images a run trains on, and the sentence that says so."""

import dataclasses
from collections.abc import Sequence

from cellsparse_common.channels import ALPHA, RGB, find_channels, is_colour
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import dataset_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan

COLOUR_SHIFT = 0.2
"""Augmentation of colour images in FAST."""


def choose_channels(
    plan: Plan,
    settings: trainer_pb2.TrainingSettings,
    items: Sequence[dataset_pb2.DatasetItem],
    *,
    tool: str,
    most: int,
    inputs: int = 0,
) -> Plan:
    """Return the plan with the channels that a run trains on.

    Args:
        plan: The plan without them.
        settings: What was asked for: `channels` or `channel`; none of them is a choice by the images.
        items: All items that are trained or validated on.
        tool: Name of the network, for messages.
        most: Most channels that the network takes.
        inputs: Channels that the network of an initial model has, whose weights fix them; 0: any number up to `most`.

    Raises:
        InvalidArgument: A channel does not exist in an item or has different places in two, there are too many for the
            network, or the images have more than the network takes and nobody says which ones to take.
    """
    if settings.channels and settings.HasField("channel"):
        raise InvalidArgument("Both channel and channels are given; give channels only.", "settings.channels")
    if settings.channels:
        chosen = _asked(list(settings.channels), items)
        if len(chosen) > most:
            raise InvalidArgument(
                f"channels are {', '.join(settings.channels)}; {tool} takes at most {most}.", "settings.channels"
            )
        plan = _with(plan, chosen)
    elif not settings.HasField("channel") and not inputs:
        plan = _by_images(plan, settings, items, tool, most)
    if inputs and plan.inputs != inputs:
        raise InvalidArgument(
            f"The run trains on {plan.inputs} channel(s), but the network of its initial model takes {inputs}; choose "
            "as many with channels, or start from another model.",
            "settings.channels",
        )
    return plan


def count(item: dataset_pb2.DatasetItem) -> int:
    """Return the number of an item's channels."""
    return int(item.shape[-1]) if item.axes.endswith("C") else 1


def describe_channels(plan: Plan, items: Sequence[dataset_pb2.DatasetItem]) -> str:
    """Return the sentence that says which channels the network gets; empty where all images have one."""
    if all(count(item) == 1 for item in items):
        return ""
    names = items[0].channels
    if plan.channels:
        listed = ", ".join(_named(channel, names) for channel in plan.channels)
        return f"The network gets the channels {listed} of the images."
    if plan.channel is not None:
        return f"The network gets channel {_named(plan.channel, names)} of the images."
    most = max(map(count, items))
    return f"The network gets the mean of all channels of the images, up to {most}."


def channel_names(plan: Plan, items: Sequence[dataset_pb2.DatasetItem]) -> list[str]:
    """Return the names of the channels that a network gets, in its order.

    Empty where they have none, and for the mean of several.
    """
    names = list(items[0].channels) if items else []
    numbers = plan.channels or (() if plan.channel is None else (plan.channel,))
    return [names[channel] for channel in numbers] if numbers and max(numbers) < len(names) else []


def _named(channel: int, names: Sequence[str]) -> str:
    named = channel < len(names) and names[channel] != str(channel)
    return f"{channel} ({names[channel]})" if named else str(channel)


def _with(plan: Plan, channels: Sequence[int]) -> Plan:
    several = tuple(channels) if len(channels) > 1 else ()
    return dataclasses.replace(plan, channel=channels[0] if len(channels) == 1 else None, channels=several)


def _asked(wanted: list[str], items: Sequence[dataset_pb2.DatasetItem]) -> tuple[int, ...]:
    """Return the numbers of the channels that are asked for, the same in every item."""
    first: tuple[int, ...] | None = None
    for item in items:
        try:
            found = find_channels(wanted, item.channels, count(item), "settings.channels")
        except InvalidArgument as error:
            raise InvalidArgument(f"Item {item.name!r}: {error.message}", "settings.channels") from error
        if first is None:
            first = found
        elif found != first:
            raise InvalidArgument(
                f"The channels {', '.join(wanted)} are numbers {_list(first)} of item {items[0].name!r} but "
                f"{_list(found)} of item {item.name!r}; give numbers, or upload images with the same order.",
                "settings.channels",
            )
    return first or ()


def _by_images(
    plan: Plan,
    settings: trainer_pb2.TrainingSettings,
    items: Sequence[dataset_pb2.DatasetItem],
    tool: str,
    most: int,
) -> Plan:
    """Return the plan with all channels of the images, or the mean where that is what people mean (see the proto)."""
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    counts, named = {count(item) for item in items}, all(item.channels for item in items)
    if len(counts) != 1 or counts == {1} or not named or paper:
        return plan
    colour = {is_colour(item.channels) for item in items}
    if colour == {True}:
        if most < len(RGB):
            return plan
        plan = _with(plan, range(len(RGB)))
        return plan if settings.HasField("colour_shift") else dataclasses.replace(plan, colour_shift=COLOUR_SHIFT)
    if len(colour) > 1:
        return plan
    names = items[0].channels
    seen = [channel for channel, name in enumerate(names) if name.casefold() != ALPHA]
    if len(seen) > most:
        there = ", ".join(_named(channel, names) for channel in seen)
        raise InvalidArgument(
            f"The images have {len(seen)} channels ({there}); {tool} takes at most {most}: say which with channels, or "
            "mean for the mean of all.",
            "settings.channels",
        )
    return _with(plan, seen)


def _list(channels: Sequence[int]) -> str:
    return ", ".join(map(str, channels)) or "none"
