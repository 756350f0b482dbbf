"""Compute the reported figures from the recorded data: pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from simulation.ideal import ideal_delays, ideal_end
from simulation.scenario import Scenario

Row = Mapping[str, Any]
_RATES = ("cpu_seconds", "looks", "look_seconds", "statements", "statement_seconds", "commits", "events")


def spread(values: Iterable[float]) -> dict[str, float | None]:
    """Return median and 99th percentile; None without values."""
    found = list(values)
    if not found:
        return {"median": None, "p99": None}
    return {"median": round(float(np.median(found)), 4), "p99": round(float(np.percentile(found, 99)), 4)}


def endings(runs: Sequence[Row], trainings: Sequence[Row], twice: Sequence[str], asked: int) -> dict[str, Any]:
    """Return how all runs ended, with the number of runs that were lost or trained twice."""
    completed = Counter(training["run_id"] for training in trainings if training["completed"] and not training["ended"])
    succeeded = {run["id"] for run in runs if run["state"] == "SUCCEEDED"}
    return {
        "asked": asked,
        "states": dict(Counter(run["state"] for run in runs)),
        "attempts": sum(run["attempts"] for run in runs),
        "lost": asked - len(runs) + sum(run["ended_at"] is None for run in runs),
        "succeeded_without_training": len(succeeded - set(completed)),
        "trained_twice": len(twice) + sum(count > 1 for count in completed.values()),
    }


def queue_figures(runs: Sequence[Row], first: Mapping[str, float], held: Mapping[str, float], slots: int) -> Row:
    """Return how long runs waited for their first attempt, compared with the ideal scheduler.

    Args:
        runs: Runs with `id` and `created_at`, in the order of the queue.
        first: When each run's first attempt began, by run id.
        held: How long each run's attempts hold a slot, including the pod's start, by run id, seconds.
        slots: Number of GPUs.
    """
    asked = [(run["created_at"], held[run["id"]]) for run in runs]
    waited = [first[run["id"]] - run["created_at"] for run in runs]
    ideal = ideal_delays(asked, slots)
    return {
        "seconds": spread(waited),
        "ideal_seconds": spread(ideal),
        "beyond_ideal_seconds": spread(ours - best for ours, best in zip(waited, ideal, strict=True)),
        "ideal_end": ideal_end(asked, slots),
    }


def idle_gaps(pods: Sequence[Row], trainings: Sequence[Row], created: Mapping[str, float]) -> list[float]:
    """Return how long GPUs stood idle between two trainings while the next one waited, without the pod's start.

    A run that was submitted later counts from its submission, a later attempt from the request for its pod.

    Args:
        pods: Pods with seats, `asked`, `placed` and `ready`.
        trainings: Trainings with `began` and `completed`.
        created: When each run was submitted, by run id.
    """
    by_key = {(training["run_id"], training["attempt"]): training for training in trainings}
    seats = defaultdict(list)
    for pod in pods:
        for seat in pod["seats"]:
            for gpu in seat["gpus"]:
                seats[seat["node"], gpu].append((pod, by_key.get((pod["run_id"], pod["attempt"]))))
    gaps = []
    for held in seats.values():
        held.sort(key=lambda one: one[0]["placed"])
        for (_, before), (pod, after) in pairwise(held):
            if before and after and before["completed"] and not before["ended"]:
                waits_since = created[pod["run_id"]] if pod["attempt"] == 1 else pod["asked"]
                starts = pod["ready"] - pod["placed"]
                gaps.append(after["began"] - max(before["completed"], waits_since) - starts)
    return gaps


def rates(samples: Sequence[Row], began: float, ended: float) -> dict[str, Any]:
    """Return what the orchestrator used and did per second between two times, and the cost of each operation."""
    chosen = [sample for sample in samples if began <= sample["time"] <= ended] or list(samples)
    first, last = chosen[0], chosen[-1]
    seconds = max(last["time"] - first["time"], 1e-9)
    change = {name: last.get(name, 0.0) - first.get(name, 0.0) for name in (*_RATES, "lock_waits", "lock_seconds")}
    return {
        "seconds": round(seconds, 1),
        "cores": round(change["cpu_seconds"] / seconds, 3),
        "events_per_second": round(change["events"] / seconds, 1),
        "cpu_ms_per_event": round(1000 * change["cpu_seconds"] / max(change["events"], 1), 3),
        "transactions_per_second": round(change["commits"] / seconds, 1),
        "statements_per_second": round(change["statements"] / seconds, 1),
        "statement_ms": round(1000 * change["statement_seconds"] / max(change["statements"], 1), 3),
        "lock_wait_ms": round(1000 * change["lock_seconds"] / max(change["lock_waits"], 1), 3),
        "looks_per_second": round(change["looks"] / seconds, 2),
        "look_ms": round(1000 * change["look_seconds"] / max(change["looks"], 1), 2),
        "rss_mib": round(max(sample["rss_mib"] for sample in chosen), 1),
        "threads": max(sample["threads"] for sample in chosen),
        "files": max(sample["files"] for sample in chosen),
    }


def held_seconds(scenario: Scenario, pods: Sequence[Row], trainings: Sequence[Row]) -> dict[str, float]:
    """Return by run id how long its attempts held a slot: the start of their pods and the training."""
    held: dict[str, float] = defaultdict(float)
    for training in trainings:
        end = training["ended"] or training["completed"] or training["began"]
        held[training["run_id"]] += scenario.start_seconds + end - training["began"]
    for pod in pods:
        held.setdefault(pod["run_id"], scenario.start_seconds)
    return held
