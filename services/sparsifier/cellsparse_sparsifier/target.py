"""The dataset to be made: whether it exists already, its manifest, and how it is published."""

from google.protobuf import timestamp_pb2

from cellsparse_common.datasets import VERSION, read_manifest, summarize, write_manifest
from cellsparse_common.errors import AlreadyExists
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import dataset_pb2, sparsifier_pb2
from cellsparse_sparsifier.items import Item
from cellsparse_sparsifier.requests import read_splits, settled

Request = sparsifier_pb2.SparsifyDatasetRequest
Manifest = dataset_pb2.DatasetManifest


def find_target(store: ObjectStore, request: Request) -> Manifest | None:
    """Return the target's manifest if there is one.

    Raises:
        AlreadyExists: It cannot come from an equal request.
    """
    target = request.target_dataset_id
    if not store.exists(keys.dataset_manifest(target)):
        return None
    manifest = read_manifest(store, target)
    made = manifest.dataset
    asked = (request.dataset_id, request.target_name, settled(request.settings))
    if (made.parent_id, made.name, made.sparsify) != asked:
        raise _other(target)
    return manifest


def _other(target: str) -> AlreadyExists:
    return AlreadyExists(
        f"Dataset {target} exists and was not made by an equal request; choose another id.", "target_dataset_id"
    )


def derived_manifest(source: Manifest, request: Request, sparse_items: list[Item]) -> Manifest:
    """Return the new manifest: sparsified items in the source's order, the others as they are."""
    splits = read_splits(request)
    sparse = iter(sparse_items)
    items = [next(sparse) if item.split in splits else item for item in source.items]
    created_at = timestamp_pb2.Timestamp()
    created_at.GetCurrentTime()
    summary = summarize(
        items,
        dataset_id=request.target_dataset_id,
        name=request.target_name,
        created_at=created_at,
        parent_id=request.dataset_id,
        sparsify=settled(request.settings),
    )
    return Manifest(version=VERSION, dataset=summary, items=items)


def publish(store: ObjectStore, manifest: Manifest, existing: Manifest | None) -> None:
    """Write the manifest unless it is there already.

    Raises:
        AlreadyExists: What is there differs in more than its time.
    """
    if existing is None:
        write_manifest(store, manifest)
        return
    manifest.dataset.created_at.CopyFrom(existing.dataset.created_at)
    if manifest != existing:
        raise _other(manifest.dataset.id)
