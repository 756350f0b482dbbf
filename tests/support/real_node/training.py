"""A training that is quick on any machine, begun as people begin one, and one that something happens to."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from support.limits import LONG_PATIENCE
from support.tiny_dataset import blobs, sparse

from cellsparse import Client
from cellsparse.runs import Run
from cellsparse_proto.v1 import orchestrator_pb2

SETTINGS = {
    "base_channels": 4,
    "steps": 60,
    "batch_size": 1,
    "crop_size": 32,
    "checkpoint_every_steps": 2,
    "validate_every_steps": 5,
    "seed": 3,
}

LONG = {"steps": 100_000, "checkpoint_every_steps": 10, "validate_every_steps": 1_000}
"""Settings of a training that no machine ends before something has happened to it."""
UNDER_WAY = 5
"""Step from which on a training is under way."""


def start(client: Client, backend: str = "unet", **settings: Any) -> Run:
    """Upload a tiny dataset with few labels, and begin a training."""
    items = []
    for number, split in enumerate(("train", "val")):
        image, label = blobs(seed=number)
        items.append((f"item{number}", split, image, sparse(label)))
    given = {**SETTINGS, **settings} if backend == "unet" else settings
    return client.train(client.create_dataset("tiny", items).id, backend, **given)


def watched(run: Run) -> orchestrator_pb2.Run:
    """Watch a run until it has ended, and return it."""
    for _ in run.watch():
        pass
    return run.info()


def newest_checkpoint(release: Any, run: Run) -> int:
    """Return the step of a run's newest checkpoint in the store."""
    (pod,) = release.pods("minio")
    code, listed = release.run_in(pod.metadata.name, "ls", f"/data/cellsparse/runs/{run.id}/checkpoints")
    return max((int(name) for name in listed.split() if name.isdecimal()), default=0) if code == 0 else 0


def disturbed(
    run: Run,
    disturb: Callable[[], object],
    *,
    attempt: int,
    see: Callable[[orchestrator_pb2.RunEvent], object] = lambda _: None,
) -> list[orchestrator_pb2.RunEvent]:
    """Disturb a long training, watch until it makes steps again, and cancel it; return the events until then.

    Args:
        run: The training.
        disturb: Called once, when it is under way.
        attempt: Which attempt has to make a step after that; it fails the test if none does, or a later one.
        see: Called with every event.
    """
    events: list[orchestrator_pb2.RunEvent] = []
    after, end = float("inf"), time.time() + LONG_PATIENCE
    for event in run.watch():
        events.append(event)
        see(event)
        if after == float("inf") and event.training.step >= UNDER_WAY:
            disturb()
            after = time.time()
        made = event.training.time.seconds > after and bool(event.training.losses)
        if made and event.attempt >= attempt:
            break
        if time.time() > end:
            pytest.fail(f"attempt {attempt} made no step: {[each.message for each in events if each.message]}")
    assert events[-1].attempt == attempt, [each.message for each in events if each.message]
    run.cancel()
    return events
