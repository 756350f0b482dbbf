"""A training that is quick on any machine, begun as people begin one."""

from typing import Any

from support.tiny_dataset import blobs, sparse

from cellsparse import Client
from cellsparse.runs import Run

SETTINGS = {
    "base_channels": 4,
    "steps": 60,
    "batch_size": 1,
    "crop_size": 32,
    "checkpoint_every_steps": 2,
    "validate_every_steps": 5,
    "seed": 3,
}


def start(client: Client, backend: str = "unet", **settings: Any) -> Run:
    """Upload a tiny dataset with few labels, and begin a training."""
    items = []
    for number, split in enumerate(("train", "val")):
        image, label = blobs(seed=number)
        items.append((f"item{number}", split, image, sparse(label)))
    given = {**SETTINGS, **settings} if backend == "unet" else settings
    return client.train(client.create_dataset("tiny", items).id, backend, **given)
