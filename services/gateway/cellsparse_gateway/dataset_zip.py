"""Datasets from a zip of folders, paired as `cellsparse dataset import` pairs the files of a disk."""

import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import grpc

from cellsparse_common.errors import InvalidArgument, from_rpc_error
from cellsparse_common.faults import spelled_out
from cellsparse_common.imaging import coco
from cellsparse_common.pairing.coco_files import spread
from cellsparse_common.pairing.pairs import Pairing, pair_files
from cellsparse_gateway.calls import WORK_SECONDS, Orchestrator
from cellsparse_gateway.zip_files import CHUNK_BYTES, open_zip, read_member, read_small
from cellsparse_proto.v1 import common_pb2, dataset_pb2

SPLITS = {"train": common_pb2.SPLIT_TRAIN, "val": common_pb2.SPLIT_VAL, "test": common_pb2.SPLIT_TEST}


def upload_zip(
    orchestrator: Orchestrator, header: dataset_pb2.DatasetHeader, file: IO[bytes]
) -> tuple[dataset_pb2.CreateDatasetResponse, dict[str, str]]:
    """Make a dataset of a zip file.

    Returns:
        The answer, and the files of the zip that were left out: path, and why.

    Raises:
        InvalidArgument: The zip is broken, or has another layout.
        grpc.RpcError: The orchestrator refused it.
    """
    with open_zip(file) as archive:
        members = find_members(archive)
        paths, parts = spread(members, lambda path: read_small(archive, members[path], coco.MAX_BYTES))
        pairing = pair_files(paths, where="the zip")
        failure: list[InvalidArgument] = []

        def messages() -> Iterator[dataset_pb2.CreateDatasetRequest]:
            make = dataset_pb2.CreateDatasetRequest
            yield make(header=header)
            try:
                yield from _files(archive, members, parts, pairing)
            except InvalidArgument as error:
                failure.append(error)
                yield make()  # without its end the orchestrator refuses the upload
                return
            yield make(end=dataset_pb2.UploadEnd(items=len(pairing.pairs)))

        try:
            answer: dataset_pb2.CreateDatasetResponse = orchestrator.datasets.CreateDataset(
                messages(), timeout=WORK_SECONDS
            )
        except grpc.RpcError as error:
            if failure:
                raise failure[0] from None
            found = from_rpc_error(error)
            if len(found.violations) > 1:
                raise spelled_out(found) from None
            raise
        return answer, pairing.left_out


def find_members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the files of a zip: their paths as they were meant, and the names that the zip has for them.

    Some programs write UTF-8 without saying so, or the separators of Windows.
    """
    found = {}
    for member in archive.infolist():
        path = member.filename.replace("\\", "/")
        if not member.flag_bits & 0x800:
            with suppress(UnicodeError):  # then it is what it looks like
                path = path.encode("cp437").decode("utf-8")
        if not path.endswith("/"):
            found[path] = member.filename
    return found


def _files(
    archive: zipfile.ZipFile, members: dict[str, str], parts: dict[str, bytes], pairing: Pairing
) -> Iterator[dataset_pb2.CreateDatasetRequest]:
    make = dataset_pb2.CreateDatasetRequest
    for pair in pairing.pairs:
        for role, path in ((dataset_pb2.FILE_ROLE_IMAGE, pair.image), (dataset_pb2.FILE_ROLE_LABEL, pair.label)):
            yield make(file=dataset_pb2.FileHeader(item=pair.name, split=SPLITS[pair.split], role=role))
            for chunk in _chunks(parts[path]) if path in parts else read_member(archive, members[path]):
                yield make(chunk=chunk)


def _chunks(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), CHUNK_BYTES):
        yield data[begin : begin + CHUNK_BYTES]
