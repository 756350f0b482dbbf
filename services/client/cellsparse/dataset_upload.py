"""Upload of a dataset that goes on where it broke off: first its files, by their hash, then the dataset."""

import secrets
from collections.abc import Callable
from pathlib import Path

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import CellsparseError, FailedPrecondition, InvalidArgument
from cellsparse.items import Item, Items, files_of
from cellsparse.uploads import AT_ONCE, Blob, Sender, hashed, persistent
from cellsparse_common.faults import Faults
from cellsparse_proto.v1 import dataset_pb2

CREATE_SECONDS = 6 * 3600.0
HELD_BYTES = 2**26
"""Bytes of arrays that are held before they are sent."""
ROUNDS = 3
"""How often a dataset is asked for whose files the orchestrator finds missing or damaged."""
_NOUN = {dataset_pb2.FILE_ROLE_IMAGE: "image", dataset_pb2.FILE_ROLE_LABEL: "label"}


def create(
    connection: Connection,
    name: str,
    items: Items,
    label_kind: str,
    faults: Faults,
    read: Callable[[Item], Item],
) -> dataset_pb2.CreateDatasetFromBlobsResponse | None:
    """Upload a dataset, and return the answer; None if no item can be sent.

    Args:
        connection: The connection.
        name: Name of the dataset.
        items: What to upload.
        label_kind: What the values of label images mean.
        faults: Takes what is wrong with items. If something is, the others are only checked.
        read: Returns an item with arrays in place of files that the server could not read.

    Raises:
        CellsparseError: The dataset cannot be made.
    """
    kind = enum_names.number(dataset_pb2.LabelKind.DESCRIPTOR, label_kind, "label_kind")
    request = dataset_pb2.CreateDatasetFromBlobsRequest(
        request_id=secrets.token_hex(16), header=dataset_pb2.DatasetHeader(name=name, label_kind=kind)
    )
    batch = _Batch(Sender(connection))
    for files in files_of(items, faults, read):
        try:
            blobs = [_blob(header, content) for header, content in files]
        except InvalidArgument as error:
            faults.add(error)
            continue
        for (header, _), blob in zip(files, blobs, strict=True):
            request.files.add(file=header, sha256=blob.sha256 if blob else "")
            if blob:
                batch.add(blob)
    batch.send()
    request.check_only = bool(faults.count)
    if not request.files:
        return None
    return _create(connection, request, batch)


def _create(
    connection: Connection, request: dataset_pb2.CreateDatasetFromBlobsRequest, batch: "_Batch"
) -> dataset_pb2.CreateDatasetFromBlobsResponse:
    for remaining in reversed(range(ROUNDS)):
        try:
            answer: dataset_pb2.CreateDatasetFromBlobsResponse = persistent(
                connection, lambda: connection.call("CreateDatasetFromBlobs", request, timeout=CREATE_SECONDS)
            )
        except FailedPrecondition as error:
            if not remaining or not batch.send_again(error):
                raise
        else:
            return answer
    raise AssertionError("the last round returns or raises")


class _Batch:
    """Files that are sent together, and where to find them once more."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._blobs: list[Blob] = []
        self._held = 0
        self._paths: dict[str, Blob] = {}

    def add(self, blob: Blob) -> None:
        """Take a file."""
        self._blobs.append(blob)
        if isinstance(blob.content, bytes):
            self._held += blob.size
        else:
            self._paths[blob.sha256] = blob
        if len(self._blobs) >= AT_ONCE or self._held > HELD_BYTES:
            self.send()

    def send(self) -> None:
        """Send what waits."""
        blobs, self._blobs, self._held = self._blobs, [], 0
        if blobs:
            self._sender.send(blobs)

    def send_again(self, error: CellsparseError) -> bool:
        """Send the files that an error names, and return whether all of them are still there to be sent."""
        named = [field for field, _ in error.violations]
        if not named or not all(each in self._paths for each in named):
            return False
        self._sender.send([self._paths[each] for each in named])
        return True


def _blob(header: dataset_pb2.FileHeader, content: str | Path | bytes) -> Blob | None:
    """Return an item's file with its hash; None for an image in the store."""
    if header.stored:
        return None
    return hashed(content, f"{_NOUN[header.role]} file of item {header.item!r}")
