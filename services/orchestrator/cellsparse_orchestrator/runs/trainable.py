"""Refuse runs that cannot train: without labelled cells, or without a trainer."""

from cellsparse_common.dataset_items import refuse_mixture
from cellsparse_common.errors import FailedPrecondition, InvalidArgument
from cellsparse_orchestrator.launchers.base import NOT_TRAINERS, Launcher
from cellsparse_proto.v1 import common_pb2, dataset_pb2


def check_trainable(manifest: dataset_pb2.DatasetManifest) -> None:
    """Refuse a dataset that a model cannot be trained on.

    Raises:
        InvalidArgument: Split TRAIN has no labelled cell, or there are 2D images beside stacks.
    """
    if not any(item.split == common_pb2.SPLIT_TRAIN and item.cells for item in manifest.items):
        raise InvalidArgument(
            f"Dataset {manifest.dataset.id} has no labelled cell in an item of split TRAIN: there is nothing to learn.",
            "dataset_id",
        )
    refuse_mixture((item for item in manifest.items if item.split != common_pb2.SPLIT_TEST), "dataset_id")


def check_backend(launcher: Launcher, backend: str) -> None:
    """Refuse a backend without a trainer.

    Raises:
        FailedPrecondition: None is configured, or it cannot be started.
    """
    service = launcher.service(backend)
    if service is None:
        names = ", ".join(found.name for found in launcher.services() if found.name not in NOT_TRAINERS)
        raise FailedPrecondition(f"No {backend} trainer is configured; configured are: {names or 'none'}.")
    if service.missing:
        raise FailedPrecondition(f"The {backend} trainer cannot be started: {service.message}")
