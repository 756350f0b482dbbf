"""A dataset of files that are there already: the messages of an upload, read from the store."""

import hashlib
from collections.abc import Iterator, Sequence

from cellsparse_common.errors import Damaged, InvalidArgument, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.caller import new_owner
from cellsparse_orchestrator.catalogue.upload_table import UploadTable, missing_files
from cellsparse_proto.v1 import dataset_pb2

_NOUN = {dataset_pb2.FILE_ROLE_IMAGE: "image", dataset_pb2.FILE_ROLE_LABEL: "label file"}


def check_files(table: UploadTable, files: Sequence[dataset_pb2.BlobFile]) -> None:
    """Make sure that all files are there.

    Raises:
        InvalidArgument: A file has no hash, or one that is read in the store has one.
        FailedPrecondition: A file is missing.
    """
    for entry in files:
        if bool(entry.sha256) == bool(entry.file.stored):
            raise InvalidArgument(
                f"The {_what(entry)} is given {'both a hash and' if entry.sha256 else 'neither a hash nor'} a place in "
                "the store; give one of both.",
                "files.sha256",
            )
    table.require([(entry.sha256, _what(entry)) for entry in files if entry.sha256])


def upload_of(
    request: dataset_pb2.CreateDatasetFromBlobsRequest, store: ObjectStore, table: UploadTable
) -> Iterator[dataset_pb2.CreateDatasetRequest]:
    """Yield what a client would have sent.

    Raises:
        FailedPrecondition: A file is damaged; from now on it is missing.
        StorageError: The store failed.
    """
    make = dataset_pb2.CreateDatasetRequest
    yield make(header=request.header)
    for entry in request.files:
        yield make(file=entry.file)
        if not entry.sha256:
            continue
        try:
            for part in store.read(keys.blob(entry.sha256)):
                yield make(chunk=part)
        except (NotFound, Damaged) as error:
            table.forget(entry.sha256)
            raise missing_files([(entry.sha256, _what(entry))]) from error
    yield make(end=dataset_pb2.UploadEnd(items=len({entry.file.item for entry in request.files})))


def dataset_id_of(request_id: str) -> str:
    """Return the id of the dataset that a request of the caller's project makes, however often it is repeated."""
    return "ds-" + hashlib.sha256(f"{new_owner() or ''}/{request_id}".encode()).hexdigest()[:32]


def _what(entry: dataset_pb2.BlobFile) -> str:
    return f"{_NOUN.get(entry.file.role, 'file')} of item {entry.file.item!r}"
