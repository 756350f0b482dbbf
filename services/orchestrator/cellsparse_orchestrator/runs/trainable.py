"""Refuse runs that cannot train: without labelled cells, or without a trainer."""

import threading
from collections import OrderedDict

from cellsparse_common.dataset_items import refuse_mixture
from cellsparse_common.datasets import read_known_manifest
from cellsparse_common.errors import FailedPrecondition, InvalidArgument
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.launchers.base import NOT_TRAINERS, Launcher
from cellsparse_proto.v1 import common_pb2, dataset_pb2

_MOST_KNOWN = 10_000


class TrainableDatasets:
    """Datasets that a model can be trained on. Each one's manifest is read once, as it never changes.

    Args:
        store: Where the manifests are.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, dataset_id: str) -> bool:
        with self._lock:
            if dataset_id not in self._known:
                return False
            self._known.move_to_end(dataset_id)
            return True

    def check(self, dataset_id: str) -> None:
        """Read the manifest of a dataset that the database lists, and remember that a model can be trained on it.

        Raises:
            InvalidArgument: It cannot (see `check_trainable`).
            StorageError: The manifest is missing, damaged, of another version, or cannot be read.
        """
        check_trainable(read_known_manifest(self._store, dataset_id))
        with self._lock:
            self._known[dataset_id] = None
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)


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
