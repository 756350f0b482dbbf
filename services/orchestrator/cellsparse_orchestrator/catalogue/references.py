"""What refers to blobs: manifests of datasets, images of projects, deleted ones as well, and uploads."""

from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import select

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.storage import ObjectStore
from cellsparse_common.storage.blobs import blob_size
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, ProjectImageRow, UploadRow
from cellsparse_proto.v1 import dataset_pb2

_PAGE = 1000


def dataset_ids(database: Database, after: int = 0) -> Iterator[tuple[int, str]]:
    """Yield number and id of all datasets with a larger number than `after`, in ascending order."""
    while True:
        query = select(DatasetRow.number, DatasetRow.id).where(DatasetRow.number > after)
        with database.read() as session:
            rows = session.execute(query.order_by(DatasetRow.number).limit(_PAGE)).tuples().all()
        if not rows:
            return
        yield from rows
        after = rows[-1][0]


def image_blobs(database: Database, after: int = 0) -> Iterator[tuple[int, str, str]]:
    """Yield number, id and blob of all images of projects with a larger number than `after`, in ascending order."""
    row = ProjectImageRow
    while True:
        query = select(row.number, row.id, row.sha256).where(row.number > after)
        with database.read() as session:
            rows = session.execute(query.order_by(row.number).limit(_PAGE)).tuples().all()
        if not rows:
            return
        yield from rows
        after = rows[-1][0]


def own_bytes(store: ObjectStore, manifest: dataset_pb2.DatasetManifest) -> int:
    """Return the bytes of a dataset's blobs, without those that it shares with the dataset that it was made of."""
    own = {each for item in manifest.items for each in (item.image_sha256, item.label_sha256) if each}
    if manifest.dataset.parent_id:
        with suppress(NotFound, Damaged):
            own -= set(manifest_blobs(store, manifest.dataset.parent_id))
    return sum(blob_size(store, sha256) for sha256 in own)


def manifest_blobs(store: ObjectStore, dataset_id: str) -> Iterator[str]:
    """Yield the blobs of a dataset.

    Raises:
        NotFound: It has no manifest.
        Damaged: Its manifest cannot be used.
        StorageError: The store failed.
    """
    for item in read_manifest(store, dataset_id).items:
        yield from (sha256 for sha256 in (item.image_sha256, item.label_sha256) if sha256)


def uploaded_blobs(database: Database) -> Iterator[str]:
    """Yield the blobs of uploads that nothing may be made of yet, in ascending order."""
    last = ""
    while True:
        query = select(UploadRow.sha256).where(UploadRow.sha256 > last).order_by(UploadRow.sha256).distinct()
        with database.read() as session:
            found = list(session.scalars(query.limit(_PAGE)))
        if not found:
            return
        yield from found
        last = found[-1]


def is_uploaded(database: Database, sha256: str) -> bool:
    """Whether an upload needs a blob."""
    with database.read() as session:
        return session.scalar(select(UploadRow.sha256).where(UploadRow.sha256 == sha256).limit(1)) is not None
