"""Upload of a dataset that goes on where it broke off: first its files, by their hash, then the dataset."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import FailedPrecondition, InvalidArgument
from cellsparse.items import Item, Items, files_of
from cellsparse.upload_queue import UploadQueue
from cellsparse.uploads import Blob, Sender, hashed, persistent
from cellsparse_common.faults import Faults
from cellsparse_proto.v1 import dataset_pb2

CREATE_SECONDS = 6 * 3600.0
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
    sender = Sender(connection)
    paths: dict[str, Blob] = {}
    with UploadQueue(sender) as queue:
        for files in files_of(items, faults, read):
            try:
                blobs = [_blob(header, content) for header, content in files]
            except InvalidArgument as error:
                faults.add(error)
                continue
            for (header, _), blob in zip(files, blobs, strict=True):
                request.files.add(file=header, sha256=blob.sha256 if blob else "")
                if blob:
                    queue.add(blob)
                    if not isinstance(blob.content, bytes):
                        paths[blob.sha256] = blob
    request.check_only = bool(faults.count)
    if not request.files:
        return None
    return _create(connection, request, sender, paths)


def _create(
    connection: Connection,
    request: dataset_pb2.CreateDatasetFromBlobsRequest,
    sender: Sender,
    paths: Mapping[str, Blob],
) -> dataset_pb2.CreateDatasetFromBlobsResponse:
    for remaining in reversed(range(ROUNDS)):
        try:
            answer: dataset_pb2.CreateDatasetFromBlobsResponse = persistent(
                connection, lambda: connection.call("CreateDatasetFromBlobs", request, timeout=CREATE_SECONDS)
            )
        except FailedPrecondition as error:
            named = [field for field, _ in error.violations]
            if not (remaining and named and all(each in paths for each in named)):
                raise  # what was an array is not there any more to be sent again
            sender.send([paths[each] for each in named])
        else:
            return answer
    raise AssertionError("the last round returns or raises")


def _blob(header: dataset_pb2.FileHeader, content: str | Path | bytes) -> Blob | None:
    """Return an item's file with its hash; None for an image in the store."""
    if header.stored:
        return None
    return hashed(content, f"{_NOUN[header.role]} file of item {header.item!r}")
